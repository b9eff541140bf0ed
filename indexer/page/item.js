/** What every list of items shares: a title, and the two things that a customer can do with it. */

import { element } from "./element.js";

/** The title, or the id of an item that the catalogue does not know. */
export const titleOf = (item) => item.title || item.item_id;

/** The buttons of an item; `onTake(type, item, startedMs)` when one is pressed. */
export function takeButtons(item, onTake) {
  const button = (type, label) =>
    element(
      "button",
      {
        type: "button",
        class: `take take-${type}`,
        "data-take": type,
        "aria-label": `${label} ${titleOf(item)}`,
        // The event's own time stamp: the clock starts when the finger moves, not when we hear.
        click: (event) => onTake(type, item, event.timeStamp),
      },
      label,
    );
  return element("div", { class: "takes" }, button("click", "Click"), button("purchase", "Buy"));
}
