/** The page: a customer, the list, the gauge, and the running system around them. */

import * as api from "./api.js";
import { Customers } from "./customers.js";
import { byId, element } from "./element.js";
import { Gauge } from "./gauge.js";
import { History } from "./history.js";
import { titleOf } from "./item.js";
import { Recommendations } from "./recommendations.js";
import { Search } from "./search.js";
import { Visit } from "./visit.js";
import { Vitals } from "./vitals.js";
import { counted } from "./words.js";

const STATUS_EVERY_MS = 2_500;
const CUSTOMERS_OFFERED = 12;
const NOTICE_MS = 12_000;
const DONE = { click: "clicked", purchase: "bought" };

class Page {
  constructor() {
    const take = (type, item, startedMs) => this.take(type, item, startedMs);
    this.vitals = new Vitals(byId("vitals"));
    this.list = new Recommendations(byId("list"), byId("sources"), take);
    this.history = new History(byId("history"));
    this.search = new Search(
      { input: byId("search"), facts: byId("search-facts"), list: byId("finds") },
      take,
    );
    this.gauge = new Gauge({
      root: byId("gauge"),
      reading: byId("gauge-ms"),
      caption: byId("gauge-caption"),
      graph: byId("gauge-graph"),
      sums: byId("gauge-sums"),
      key: byId("gauge-key"),
    });
    this.customers = new Customers(
      {
        list: byId("customers"),
        form: byId("customer-form"),
        input: byId("customer-id"),
        fresh: byId("new-customer"),
      },
      (id) => this.choose(id),
    );
    this.visit = null;
    this.opened = null; // the id of the customer who is shown
    this.change = null; // what the last shown list changed
    this.generation = null; // the name of the last one seen in service
    this.status = null; // the system's last one
    this.isTroubled = false;
    this.isWatching = false;
  }

  async start() {
    addEventListener("popstate", () => {
      // A jump within the page pops a state too, and must not build the list anew under the focus.
      if (customerInAddress() !== this.opened) this.open(customerInAddress());
    });
    document.addEventListener("visibilitychange", () => this.watch());
    setInterval(() => this.watch(), STATUS_EVERY_MS);
    await this.watch(); // first, as it says what "now" is
    const id = customerInAddress();
    if (id && !this.visit) this.open(id);
  }

  /** Chooses a customer, as a step that the browser's Back undoes. */
  choose(id) {
    const address = new URL(location.href);
    address.searchParams.set("user", id);
    window.history.pushState(null, "", address);
    this.open(id);
  }

  open(id) {
    this.opened = id;
    this.visit?.leave();
    this.visit = null;
    if (this.gauge.isWaiting) this.gauge.drop("Left before the list had changed.");
    this.list.clear();
    this.history.clear();
    byId("list-facts").textContent = "";
    byId("history-facts").textContent = "";
    byId("customer-facts").textContent = "";
    this.customers.mark(id);
    if (!id) return;
    byId("customer-name").replaceChildren("Customer ", element("span", {}, id));
    document.title = `${id} · Rheos`;
    this.say("loading", "Reading …");
    const visit = new Visit(id, {
      show: (user, answer) => this.show(user, answer),
      reflected: (click) => this.reflected(click),
      late: (click) => this.late(click),
      trouble: (error) => this.trouble(error),
      refused: (error) => this.say("refused", "This customer cannot be shown.", error.message),
    });
    this.visit = visit;
    visit.load();
  }

  /** A visit's history and list; `user` is null for a customer without any event. */
  show(user, answer) {
    this.serves(answer.generation);
    const entries = user?.history ?? [];
    // The last status is seconds old; in a replayed stream these may be hours.
    this.history.show(entries, Math.max(this.now(), entries[0]?.time_ms ?? 0));
    this.change = this.list.show(answer.items);
    byId("customer-facts").textContent = customerFacts(user);
    byId("history-facts").textContent = entries.length ? "newest first" : "";
    byId("history").dataset.empty = String(!entries.length);
    byId("list-facts").textContent = answerFacts(answer);
    this.isTroubled = false;
    if (answer.items.length) this.say("shown");
    else {
      this.say(
        "empty",
        "Nothing to recommend yet.",
        "Once events or a catalogue have arrived, the list fills by itself.",
      );
    }
  }

  async take(type, item, startedMs) {
    if (!this.visit) {
      this.gauge.drop("Choose a customer first, or be a new one.");
      return;
    }
    const visit = this.visit;
    const what = `${DONE[type]} ${titleOf(item)}`;
    this.list.markTaken(item.item_id, true);
    this.gauge.wait(startedMs, `${capital(what)} …`);
    try {
      await visit.take(type, item, startedMs);
    } catch (error) {
      if (visit !== this.visit) return;
      if (!(error instanceof api.ApiError)) throw error;
      this.list.markTaken(item.item_id, false);
      this.gauge.drop(`Not ${what}: ${error.message}`);
      this.speak(`Not ${what}: ${error.message}`);
    }
  }

  reflected({ type, item, acceptedMs, totalMs }) {
    const { entered, left, moved } = this.change;
    const changes = [
      left.length ? `${left.length} left` : "",
      entered.length ? `${entered.length} new` : "",
      moved ? `${moved} moved` : "",
    ].filter(Boolean);
    const caption = `${capital(DONE[type])} ${titleOf(item)}: ${changes.join(", ") || "the list stays as it was"}.`;
    this.gauge.read(acceptedMs, totalMs, caption);
    this.speak(`${Math.round(totalMs)} milliseconds. ${caption}`);
  }

  late({ type, item }) {
    this.gauge.explain(
      `${capital(DONE[type])} ${titleOf(item)}: Kafka has it, the stream worker has not folded it in yet.`,
    );
  }

  trouble(error) {
    this.isTroubled = true;
    if (error.status === 0) {
      this.say("away", "Rheos does not answer.", "Trying again until it does.");
    } else if (error.code === "busy") {
      this.say("behind", "Busy.", "Too many ask at once. Trying again.");
    } else {
      this.catchingUp(error.message);
    }
  }

  catchingUp(reason) {
    this.isTroubled = true;
    this.say("behind", "Catching up.", `${capital(reason)}.`);
  }

  /** Now as the answers mean it: wall time, or that of the replayed stream. */
  now() {
    return this.status?.clock === "stream" ? this.status.now_ms : Date.now();
  }

  /** Asks how the system is, and whether it moved on without a click here. */
  async watch() {
    if (document.hidden || this.isWatching) return;
    this.isWatching = true;
    try {
      const status = await api.status();
      this.status = status;
      this.vitals.show(status, status.not_ready ? "behind" : "live");
      if (status.not_ready) {
        this.catchingUp(status.not_ready);
        return;
      }
      await this.offerCustomers();
      this.serves(status.generation?.name);
      const visit = this.visit;
      if (visit?.answer) await this.keepUp(visit, status);
    } catch (error) {
      if (!(error instanceof api.ApiError)) throw error;
      this.vitals.show(null, error.status === 0 ? "away" : "behind");
      if (!this.visit || this.visit.answer) this.trouble(error);
    } finally {
      this.isWatching = false;
    }
  }

  async keepUp(visit, status) {
    const isOld = status.generation && status.generation.name !== visit.answer.generation;
    try {
      await (isOld || this.isTroubled || !visit.answer.items.length ? visit.refresh() : visit.look());
    } catch (error) {
      if (visit === this.visit) throw error;
    }
  }

  async offerCustomers() {
    if (this.customers.known.length) return;
    const { users } = await api.customers(CUSTOMERS_OFFERED);
    this.customers.show(users, this.visit?.customerId);
    if (this.visit || customerInAddress()) return;
    if (users.length) this.open(users[0].user_id);
    else this.say("empty", "No customers yet.", "Be a new one, or send events to Kafka.");
  }

  /** A generation is in service; says so when it took over from another. */
  serves(name) {
    if (!name || name === this.generation) return;
    const before = this.generation;
    this.generation = name;
    if (before) this.notify(`Hot swap: generation ${name} took over from ${before}.`);
  }

  notify(text) {
    const close = element(
      "button",
      { type: "button", "aria-label": "Close this message", click: () => notice.remove() },
      "×",
    );
    const notice = element("p", { class: "notice" }, element("span", {}, text), close);
    byId("notice").replaceChildren(notice);
    setTimeout(() => notice.remove(), NOTICE_MS);
  }

  /** The state of the list: what stands in its place, or above it. */
  say(state, head, text) {
    const place = byId("list-state");
    if (place.dataset.state === state && place.dataset.text === `${head}${text}`) return;
    place.dataset.state = state;
    place.dataset.text = `${head}${text}`;
    byId("list").dataset.state = state;
    place.replaceChildren(
      ...(head ? [element("p", { class: "state-head" }, head)] : []),
      ...(text ? [element("p", { class: "state-text" }, text)] : []),
    );
  }

  speak(text) {
    byId("spoken").textContent = text;
  }
}

function customerInAddress() {
  return new URLSearchParams(location.search).get("user");
}

function customerFacts(user) {
  if (!user?.as_of) return "No event yet: the list is what everybody takes now.";
  const twice = user.duplicates ? `, ${counted(user.duplicates, "duplicate")} left out` : "";
  const { partition, offset } = user.as_of;
  return `${counted(user.accepted, "event")}${twice} · last at events[${partition}]@${offset}`;
}

function answerFacts({ generation, as_of }) {
  const from = generation ? `of generation ${generation}` : "without a generation yet";
  return as_of ? `${from}, as of events[${as_of.partition}]@${as_of.offset}` : from;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

new Page().start();
