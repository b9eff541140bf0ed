/** DOM from plain values. Text is always a text node, so markup in a title stays text. */

/**
 * A new element. `attributes`: a function is a listener for the event of that name, false and null
 * leave the attribute out. Children are elements or text; null leaves one out.
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null).map(asNode));
  return made;
}

function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}

/** The page's element of that id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Whether the visitor asked their system for less motion. */
export function prefersStillness() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}
