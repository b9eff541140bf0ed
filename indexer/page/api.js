/** The HTTP API, a function a call. Paths are relative, so the page works below any prefix. */

const TIMEOUT_MS = 10_000;

/** A call that gave no answer (`status` 0) or an error; `code` is the API's own word for it. */
export class ApiError extends Error {
  constructor(status, code, message, retryAfterMs = 1_000) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether the same call may succeed a little later. */
  get passing() {
    return this.status === 0 || this.status === 503 || this.status === 429;
  }
}

export async function customers(limit) {
  return call("GET", `v1/users?limit=${limit}`);
}

/** A customer's history, or null when there is none. */
export async function customer(id, signal) {
  try {
    return await call("GET", `v1/users/${segment(id)}`, { signal });
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

export async function recommendations(id, k, signal) {
  return call("GET", `v1/users/${segment(id)}/recommendations?k=${k}&explain=true`, { signal });
}

export async function items(query, limit, signal) {
  return call("GET", `v1/items?query=${encodeURIComponent(query)}&limit=${limit}`, { signal });
}

/** Posts one event; resolves once the broker has it, with its {partition, offset}. */
export async function postEvent(event) {
  const { events } = await call("POST", "v1/events", { body: event });
  return events[0];
}

export async function status() {
  return call("GET", "v1/status");
}

/** An id as one segment of a path. Two ids cannot be one: a URL resolves them away. */
function segment(id) {
  if (id === "." || id === "..") {
    throw new ApiError(400, "unreachable_id", `A URL cannot name the id "${id}".`);
  }
  return encodeURIComponent(id);
}

async function call(method, path, { body, signal } = {}) {
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  const request = {
    method,
    cache: "no-store",
    headers: { accept: "application/json" },
    signal: signal ? AbortSignal.any([signal, limit]) : limit,
  };
  if (body !== undefined) {
    request.headers["content-type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let response, content;
  try {
    response = await fetch(path, request);
    content = await response.json();
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    if (response && !limit.aborted && !response.ok) {
      throw failure(response, {});
    }
    throw new ApiError(0, "no_answer", "Rheos does not answer.");
  }
  if (!response.ok) throw failure(response, content?.error ?? {});
  return content;
}

function failure(response, { code = "error", message }) {
  const seconds = Number(response.headers.get("retry-after"));
  const retryAfterMs = seconds > 0 ? Math.min(seconds * 1_000, 10_000) : 1_000;
  return new ApiError(
    response.status, code, message ?? `The answer was ${response.status}.`, retryAfterMs,
  );
}
