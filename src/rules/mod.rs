//! What we decide: templates and their input, quotes, the run machine, the transcript, refusals.
//! Pure: time and ids come in as arguments, the next deadline goes out as a value.

pub mod breaker;
pub mod capability;
pub mod claude;
pub mod config;
pub mod contract;
pub mod dossier;
pub mod evidence;
pub mod identifier;
pub mod input;
pub mod ledger;
pub mod output;
pub mod owner;
pub mod quote;
pub mod refusal;
pub mod run;
pub mod schema;
pub mod task;
pub mod template;
pub mod transcript;
pub mod webhook;
