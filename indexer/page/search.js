/** The search for an item to take. */

import * as api from "./api.js";
import { element } from "./element.js";
import { takeButtons, titleOf } from "./item.js";
import { counted, priceText } from "./words.js";

const PAUSE_MS = 150;
const FOUND = 8;

export class Search {
  /** `parts`: input, facts (a line of text) and list (an <ul>). */
  constructor(parts, onTake) {
    this.parts = parts;
    this.onTake = onTake;
    this.timer = 0;
    this.asking = new AbortController();
    parts.input.addEventListener("input", () => this.askSoon());
    parts.input.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.empty();
    });
    document.addEventListener("keydown", (event) => {
      const isTyping = event.target.closest?.("input, textarea, select");
      if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      parts.input.focus();
    });
  }

  empty() {
    this.parts.input.value = "";
    this.askSoon();
  }

  askSoon() {
    clearTimeout(this.timer);
    this.asking.abort();
    this.asking = new AbortController();
    const query = this.parts.input.value.trim();
    if (!query) {
      this.parts.list.replaceChildren();
      this.parts.facts.textContent = "";
      return;
    }
    this.timer = setTimeout(() => this.ask(query, this.asking.signal), PAUSE_MS);
  }

  async ask(query, signal) {
    try {
      const { items } = await api.items(query, FOUND, signal);
      this.parts.list.replaceChildren(...items.map((item) => this.find(item)));
      this.parts.facts.textContent = items.length
        ? `${counted(items.length, "item")}${items.length === FOUND ? " or more" : ""}`
        : `No item with “${query}”.`;
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof api.ApiError)) throw error;
      this.parts.list.replaceChildren();
      this.parts.facts.textContent = error.message;
    }
  }

  find(item) {
    return element(
      "li",
      { class: "find", "data-item-id": item.item_id },
      element(
        "div",
        { class: "what" },
        element("p", { class: "title" }, titleOf(item)),
        element("p", { class: "because" }, factsOf(item)),
      ),
      takeButtons(item, this.onTake),
    );
  }
}

function factsOf(item) {
  return [
    item.title ? item.item_id : null,
    item.price == null ? null : priceText(item.price),
    item.available === false ? "not available" : null,
  ]
    .filter(Boolean)
    .join(" · ");
}
