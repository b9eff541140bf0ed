/** The choice of a customer: some known ones, any id, or a new one. */

import { randomHex } from "./chance.js";
import { element } from "./element.js";
import { counted } from "./words.js";

export class Customers {
  /** `parts`: list (an <ul>), form, input, fresh (the button of a new one). */
  constructor(parts, onChoose) {
    this.parts = parts;
    this.onChoose = onChoose;
    this.known = [];
    parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      const id = parts.input.value.trim();
      if (id) onChoose(id);
      else parts.input.focus();
    });
    parts.fresh.addEventListener("click", () => onChoose(`guest-${randomHex(8)}`));
  }

  /** Offers `users`; marks the one that is chosen. */
  show(users, chosenId) {
    this.known = users;
    this.mark(chosenId);
  }

  mark(chosenId) {
    const focusedId = document.activeElement?.dataset?.customerId;
    this.parts.list.replaceChildren(
      ...this.known.map((user) =>
        element(
          "li",
          {},
          element(
            "button",
            {
              type: "button",
              class: "customer",
              "data-customer-id": user.user_id,
              "aria-current": user.user_id === chosenId && "true",
              title: user.accepted == null ? null : counted(user.accepted, "event"),
              click: () => this.onChoose(user.user_id),
            },
            user.user_id,
          ),
        ),
      ),
    );
    const again = [...this.parts.list.querySelectorAll("button")];
    again.find((button) => button.dataset.customerId === focusedId)?.focus();
  }
}
