// Elements from text, never from markup: whatever a run, pool or host is called stays text.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element; `attributes` that are null or false are left out, children are nodes, text, null or false. */
export function html(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** Puts these children in the place of all others. */
export function fill(element, ...children) {
  element.replaceChildren(...children.filter(isThere).map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

/** A figure that a person reads as `text` and a program as `value`. */
export function figure(value, text, name) {
  return html("data", { value: value ?? "", "data-figure": name }, text);
}

/** A part of a bar, as wide as its share among the others. */
export function part(kind, share, title) {
  const element = html("span", { class: `part ${kind}`, title });
  element.style.flexGrow = String(1000 * Math.max(share, 0)); // parts that sum to less than 1 would not fill the bar;
  return element;
}

/** What the parts of bars and charts mean; each entry is [class, words]. */
export function legend(entries) {
  return html(
    "ul",
    { class: "legend" },
    ...entries.map(([kind, words]) => html("li", {}, html("span", { class: `swatch ${kind}` }), words)),
  );
}

/** A card's first line. */
export function heading(words, ...asides) {
  return html("div", { class: "heading" }, html("h2", {}, words), ...asides);
}

export function byId(id) {
  return document.getElementById(id);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  return fill(element, ...children);
}

function isThere(child) {
  return child !== null && child !== undefined && child !== false;
}
