//! The Durable Objects: the entry points that Cloudflare calls beside the one in `lib.rs`.
//!
//! [`run`] is one object for each payment, contract and owner's test; [`payer`] is one for each payer. They load, save,
//! keep one alarm and hand over to the engine; the decisions are made in `rules/`.

mod payer;
mod run;
