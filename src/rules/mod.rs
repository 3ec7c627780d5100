//! What we decide. Pure: time, ids and random numbers come in as arguments, and the next deadline goes out as a
//! value. Nothing here is `async` or names the runtime, so all of it runs, fuzzes and model-checks natively.
//!
//! The folders, each of which imports only from those named after it: [`hire`] and [`record`], [`payment`], [`template`],
//! [`run`] (the run machine), [`refusal`] and [`secret`].

pub mod admission;
pub mod config;
pub mod file_link;
pub mod hire;
pub mod ids;
pub mod model_answer;
pub mod model_request;
pub mod owner;
pub mod payment;
pub mod record;
pub mod refusal;
pub mod run;
pub mod secret;
pub mod template;
