//! The engine runs what the run machine decides: it takes an effect, does it at the edge, and hands the event back.
//!
//! - [`wallet`] is the runs of one wallet in memory: who joins one, who begins one, and which of them has to wake when.
//! - [`session`] is one run in memory: its data, its storage, and the callers who are connected.
//! - [`driver`] is the one loop. What it starts for an effect is in one of the files below.
//! - [`model_call`] is one conversation with Claude, from the prompt to the last event.
//! - [`money`] verifies, settles, looks for evidence of a settlement, and reports refunds.
//! - [`ledger`] writes the run's row in D1.
//! - [`hire`] is all that concerns contracts. The files above call it where a run is verified, delivered and ended.

mod driver;
pub(crate) mod hire;
mod ledger;
mod model_call;
mod money;
mod session;
mod wallet;

pub(crate) use session::{Beginning, RunData, Session};
pub(crate) use wallet::{CallerGuard, Decision, Wallet};
