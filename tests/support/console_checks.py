"""What any page must hold, checked in the browser: contrast of text, names of controls, reach of the keyboard."""

from __future__ import annotations

from typing import Any

MIN_CONTRAST = 4.5  # WCAG 2.2, 1.4.3 (AA)
CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex='0']"

SHOW_ALL = """() => {  // every colour that the page can take, at once
  document.documentElement.append(Object.assign(document.createElement("b"), { id: "still", hidden: true }));
  const still = new CSSStyleSheet();
  still.replaceSync("* { transition: none !important; animation: none !important }");
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, still];
  for (const node of document.querySelectorAll("#machine .node")) node.classList.add("on");
  for (const name of document.querySelectorAll("#machine .trigger")) name.classList.toggle("last");
  for (const id of ["notice", "token-form", "notice-close"]) document.getElementById(id).hidden = false;
  document.getElementById("notice-text").textContent = "A notice.";
  document.getElementById("timeline-table").open = true;
  document.querySelector(".event")?.click();
}"""

LOW_CONTRAST = """(least) => {
  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = colour; pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const isIn = (outer, inner) => inner.left + 1 >= outer.left && inner.left + 1 <= outer.right;
  const ground = (element) => {
    if (element.namespaceURI.endsWith("svg")) {  // the shape of its group that it stands on, if any
      const here = element.getBoundingClientRect();
      const shapes = [...element.parentNode.children].filter((s) => s.tagName === "rect");
      const under = shapes.filter((s) => isIn(s.getBoundingClientRect(), here));
      const solid = under.map((s) => rgba(getComputedStyle(s).fill)).findLast(([, , , alpha]) => alpha === 255);
      if (solid) return solid;
    }
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return rgba(getComputedStyle(document.documentElement).colorScheme.includes("dark") ? "#000" : "#fff");
  };
  const low = [];
  let count = 0;
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!(text || element.placeholder) || !element.checkVisibility() || element.closest(".hidden, title")) continue;
    count++;
    const style = getComputedStyle(element, element.placeholder ? "::placeholder" : null);
    const ink = element.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [a, b] = [light(rgba(ink)), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const name = `${element.tagName}.${element.getAttribute("class") ?? ""}`;
    if (ratio < least) low.push(`${name} “${element.textContent.slice(0, 20)}” ${ratio.toFixed(2)}`);
  }
  return { low, count };
}"""


def low_contrast(page: Any) -> list[str]:
    """Texts that cannot be read well, in the colours that the page has now."""
    found = page.evaluate(LOW_CONTRAST, MIN_CONTRAST)
    assert found["count"] > 50, "the page has hardly any text: the check looked at nothing"
    return found["low"]


def unnamed(page: Any) -> list[str]:
    """What can have the focus, but has no name in the browser's own accessibility tree."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    focusable = [
        node
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] != "RootWebArea" and _is_focusable(node)
    ]
    assert len(focusable) > 10, "the page has hardly any control: the check looked at nothing"
    return [node["role"]["value"] for node in focusable if not node.get("name", {}).get("value", "").strip()]


def _is_focusable(node: dict[str, Any]) -> bool:
    return any(p["name"] == "focusable" and p["value"].get("value") for p in node.get("properties", ()))


def out_of_reach(page: Any) -> list[str]:
    """Controls that can be seen and used, but not reached with the Tab key from the top of the page."""
    page.evaluate("document.activeElement?.blur()")
    count = page.locator(CONTROLS).count()
    page.evaluate("window.reached = new Set()")
    page.mouse.click(3, 3)  # the focus starts at the top
    for _ in range(count + 3):
        page.keyboard.press("Tab")
        page.evaluate("window.reached.add(document.activeElement)")
    return page.evaluate(
        """(controls) => [...document.querySelectorAll(controls)]
             .filter((c) => c.checkVisibility() && !c.disabled && !window.reached.has(c))
             .map((c) => c.id || c.getAttribute("class") || c.tagName)""",
        CONTROLS,
    )
