//! The Durable Objects: the doors that Cloudflare opens beside the front door in `lib.rs`.
//!
//! [`run`] is one object for each payment, [`payer`] one for each payer. Both only load, save, keep one alarm and
//! hand over to the engine; what is decided is decided in `rules/`.

mod payer;
mod run;
