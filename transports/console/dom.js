// Small helpers. Text is set as text, never as markup.

export const $ = (id) => document.getElementById(id);

/** An element: `make("p", { class: "quiet" }, "text", child)`. Attributes that are null or false are left out. */
export const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** The same for SVG. */
export const draw = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function fill(element, attributes, children) {
  set(element, attributes);
  element.append(...children);
  return element;
}

/** Sets attributes, and touches only those that changed. */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** 84 -> "84 ms", 1240 -> "1.24 s". */
export const ms = (value) => (Math.abs(value) < 999.5 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(2)} s`);

/** 1240 -> "1.240 s": where something lies on an axis. */
export const seconds = (value) => `${(value / 1000).toFixed(3)} s`;

/** One tab stop for many items: arrow keys, Home and End move among `items()`; `chosen(item)` is told. */
export function roving(root, items, chosen = () => {}) {
  const choose = (item) => {
    for (const other of items()) other.setAttribute("tabindex", other === item ? "0" : "-1");
    item.focus();
    chosen(item);
  };
  root.addEventListener("keydown", (event) => {
    const list = items();
    const at = list.indexOf(event.target.closest("[tabindex]"));
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const next = step ? at + step : { Home: 0, End: list.length - 1 }[event.key];
    if (at < 0 || next === undefined || !list[next]) return;
    event.preventDefault();
    choose(list[next]);
  });
}
