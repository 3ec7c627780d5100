//! How the tasks of futures are queued.

use wasm_bindgen::prelude::wasm_bindgen;

// Each time a future is woken, `wasm_bindgen_futures` calls the global `queueMicrotask`. The runtime's own is written in
// C++, and wraps the callback twice; a promise stays within V8, and does the same in the same order. The promise is a
// new one each time, because it belongs to the request or object that makes it. This is a tenth of a run's CPU time.
#[wasm_bindgen(
    inline_js = "export function queue_by_promises() { globalThis.queueMicrotask = (task) => void Promise.resolve().then(task); }"
)]
extern "C" {
    /// Replaces the global `queueMicrotask`, once for the isolate.
    pub(crate) fn queue_by_promises();
}
