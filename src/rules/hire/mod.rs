//! HIRE/1.0: what a creator's worker agent offers, the contracts it signs, and the tasks it delivers.

pub mod capability;
pub mod context;
pub mod contract;
pub mod execution;
pub mod output;
pub mod task;
pub mod webhook;
