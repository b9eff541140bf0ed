/** A customer's history, newest first. */

import { element, prefersStillness } from "./element.js";
import { titleOf } from "./item.js";
import { agoText, dateText } from "./words.js";

const SHOWN = 30;

export class History {
  /** `list` is an <ol>. */
  constructor(list) {
    this.list = list;
    this.known = new Set();
  }

  clear() {
    this.known.clear();
    this.list.replaceChildren();
  }

  /** Shows `entries`, newest first, as of `nowMs`; those that were not there before drift in. */
  show(entries, nowMs) {
    const isFirst = this.known.size === 0 && !this.list.hasChildNodes();
    const known = new Set();
    const times = new Map();
    const nodes = entries.slice(0, SHOWN).map((entry) => {
      // An item may be taken twice in a millisecond: the n-th of its like is the n-th here too.
      const like = `${entry.time_ms}\n${entry.type}\n${entry.item_id}`;
      times.set(like, (times.get(like) ?? 0) + 1);
      const name = `${like}\n${times.get(like)}`;
      known.add(name);
      const node = historyEntry(entry, nowMs);
      if (!isFirst && !this.known.has(name)) node.classList.add("is-new");
      return node;
    });
    this.known = known;
    this.list.replaceChildren(...nodes);
    if (!prefersStillness()) {
      for (const node of this.list.querySelectorAll(".is-new")) {
        node.animate(
          [{ opacity: 0, transform: "translateY(-10px)" }, { opacity: 1, transform: "none" }],
          { duration: 380, easing: "ease-out" },
        );
      }
    }
  }
}

function historyEntry(entry, nowMs) {
  return element(
    "li",
    { class: "entry", "data-type": entry.type },
    element("p", { class: "entry-title" }, titleOf(entry)),
    element(
      "p",
      { class: "entry-facts" },
      element("span", { class: "entry-type" }, entry.type),
      " ",
      element(
        "time",
        { datetime: new Date(entry.time_ms).toISOString(), title: dateText(entry.time_ms) },
        agoText(entry.time_ms, nowMs),
      ),
    ),
  );
}
