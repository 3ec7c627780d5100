//! HIRE/1.0: what a creator's worker agent offers, the contracts it signs, and the tasks it delivers.

pub mod capability;
pub mod context;
pub mod contract;
pub mod deliverables;
pub mod execution;
pub mod instructions;
pub mod manifest;
pub mod open_contracts;
pub mod output;
pub mod shown_schema;
pub mod task;
pub mod webhook;
pub mod webhook_target;
