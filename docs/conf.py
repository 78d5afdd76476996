"""The docs as a site, from the Markdown files as they stand in the repository.

uv run --isolated --only-group docs sphinx-build -W -q -c docs . _site     then open _site/docs/index.html

`-W`: a link that leads nowhere fails the build.
"""

project = "Leibniz"
author = "The Leibniz authors"
copyright = "the Leibniz authors"

extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "docs/results/README.md", "docs/images/*"]
myst_heading_anchors = 3

highlight_language = "none"  # of blocks that name none: pictures
html_theme = "furo"
html_title = "Leibniz"
html_show_sourcelink = False
html_copy_source = False


def setup(app):
    """Show diagrams as their source: a renderer would fetch scripts from elsewhere."""
    from pygments.lexers.special import TextLexer

    app.add_lexer("mermaid", TextLexer)
