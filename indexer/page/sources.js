/** What the sources of a recommendation mean: the names are the API's. */

import { element } from "./element.js";

const MEANINGS = {
  vector: "close to the customer's vector, which every event moves",
  item_weights: "goes with the customer's latest items, all of them together",
  next: "taken in the same visit as the customer's last items",
  history: "taken by the customer before, lately or often",
  trend: "taken much by everybody now",
  new: "new in the catalogue, placed by its neighbours or content",
};

/** A source as a small label; colour by `data-source`, meaning on hover and in the key. */
export function sourceLabel(source) {
  return element(
    "span",
    { class: "source", "data-source": source, title: MEANINGS[source] },
    source.replaceAll("_", " "),
  );
}

/** The key below the list: the sources in `items` with how often each is there. */
export function sourceKey(items) {
  const counts = new Map();
  for (const { source } of items) counts.set(source, (counts.get(source) ?? 0) + 1);
  return [...counts].sort((one, other) => other[1] - one[1]).map(([source, count]) =>
    element(
      "div",
      {},
      element("dt", {}, sourceLabel(source), ` × ${count}`),
      element("dd", {}, MEANINGS[source] ?? ""),
    ),
  );
}
