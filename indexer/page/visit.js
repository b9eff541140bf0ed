/**
 * One customer on the page: reads history and recommendations, posts what the customer takes, and
 * waits until the list reflects it. Knows no element of the page; `on` is told what happens:
 *
 * show(user, answer)          both were read; `user` is null for an unknown customer
 * reflected(click)            the shown list is at or past the click's offset
 * late(click)                 accepted, and not reflected for LATE_MS
 * trouble(error)              a call failed that is tried again
 * refused(error)              a call failed that would fail again
 */

import * as api from "./api.js";
import { randomHex } from "./chance.js";

const LIST_SIZE = 12;

const FIRST_PAUSE_MS = 4;
const LONGEST_PAUSE_MS = 400;
const TROUBLE_PAUSE_MS = 600;
const LATE_MS = 3_000;

export class Visit {
  constructor(customerId, on) {
    this.customerId = customerId;
    this.on = on;
    this.leaving = new AbortController();
    this.pending = []; // clicks that Kafka has and the list has not, in order of offset
    this.isFollowing = false;
    this.asked = 0;
    this.shown = 0; // the last question whose answer is on the page
    this.answer = null;
  }

  /** Ends the visit: what is still under way is dropped. */
  leave() {
    this.leaving.abort();
  }

  /** Shows the customer; tries until it can. */
  async load() {
    let pause = TROUBLE_PAUSE_MS;
    for (;;) {
      try {
        await this.refresh();
        return;
      } catch (error) {
        if (this.isOver(error)) return;
        if (!error.passing) {
          this.on.refused(error);
          return;
        }
        this.on.trouble(error);
        await sleep(Math.max(pause, error.status ? error.retryAfterMs : 0));
        pause = Math.min(pause * 1.5, 5_000);
        if (this.leaving.signal.aborted) return;
      }
    }
  }

  /** Reads and shows once. Throws ApiError. */
  async refresh() {
    const ticket = ++this.asked;
    const { signal } = this.leaving;
    const [user, answer] = await Promise.all([
      api.customer(this.customerId, signal),
      api.recommendations(this.customerId, LIST_SIZE, signal),
    ]);
    this.show(ticket, user, answer);
  }

  /** Reads again if the customer's log has moved on without this page. Throws ApiError. */
  async look() {
    if (this.pending.length || !this.answer) return;
    const user = await api.customer(this.customerId, this.leaving.signal);
    if (this.pending.length || samePlace(user?.as_of, this.answer.as_of)) return;
    await this.refresh();
  }

  /**
   * Posts that the customer took an item at `startedMs` (of performance.now()); resolves when Kafka
   * has it. Throws ApiError.
   */
  async take(type, item, startedMs) {
    const isShown = this.answer?.items.some(({ item_id }) => item_id === item.item_id);
    const place = await api.postEvent({
      user_id: this.customerId,
      item_id: item.item_id,
      type,
      // Two clicks are two events, even where the stream's clock stands still between them.
      event_id: `page-${randomHex(12)}`,
      // Names the answer that showed the item, so that a click counts for its recommendation.
      ...(isShown ? { request_id: this.answer.request_id } : {}),
    });
    const click = { type, item, startedMs, ...place, acceptedMs: performance.now() - startedMs };
    this.pending.push(click);
    this.pending.sort((one, other) => one.offset - other.offset);
    this.follow();
  }

  /**
   * Asks until no click is pending. The customer is asked for, as that is cheap and no impression;
   * the list once that has reached the click, and it counts only when its own `as_of` has, too.
   */
  async follow() {
    if (this.isFollowing) return;
    this.isFollowing = true;
    let pause = FIRST_PAUSE_MS;
    while (this.pending.length && !this.leaving.signal.aborted) {
      try {
        if (await this.reachFirst()) {
          pause = FIRST_PAUSE_MS;
          continue;
        }
      } catch (error) {
        if (this.isOver(error)) break;
        this.on.trouble(error);
        pause = TROUBLE_PAUSE_MS;
      }
      this.tellLate();
      await sleep(pause);
      pause = Math.min(pause * 1.25, LONGEST_PAUSE_MS);
    }
    this.isFollowing = false;
  }

  /** Whether the oldest pending click (and all up to it) is on the page now. */
  async reachFirst() {
    const ticket = ++this.asked;
    const { signal } = this.leaving;
    const user = await api.customer(this.customerId, signal);
    if (!reaches(user?.as_of, this.pending[0])) return false;
    const answer = await api.recommendations(this.customerId, LIST_SIZE, signal);
    if (!reaches(answer.as_of, this.pending[0])) return false;
    this.show(ticket, user, answer);
    return true;
  }

  show(ticket, user, answer) {
    if (ticket < this.shown || this.leaving.signal.aborted) return;
    this.shown = ticket;
    this.answer = answer;
    this.on.show(user, answer);
    const shownMs = performance.now();
    const reached = this.pending.filter((click) => reaches(answer.as_of, click));
    this.pending = this.pending.filter((click) => !reached.includes(click));
    for (const click of reached) {
      this.on.reflected({ ...click, totalMs: shownMs - click.startedMs });
    }
  }

  tellLate() {
    const now = performance.now();
    for (const click of this.pending) {
      if (!click.isLate && now - click.startedMs > LATE_MS) {
        click.isLate = true;
        this.on.late(click);
      }
    }
  }

  /** Whether a failure only means that the visit has ended. Anything unexpected is thrown on. */
  isOver(error) {
    if (this.leaving.signal.aborted) return true;
    if (error instanceof api.ApiError) return false;
    throw error;
  }
}

/** Whether an answer that reflects the log up to `asOf` has the event at `place`. */
function reaches(asOf, place) {
  return asOf != null && asOf.partition === place.partition && asOf.offset >= place.offset;
}

function samePlace(one, other) {
  return one?.partition === other?.partition && one?.offset === other?.offset;
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
