//! The state of a contract, as HIRE names it.

use crate::rules::run::{Run, State};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContractState {
    /// Registered, and no execution of it is under way.
    Signed,
    /// An execution is under way.
    Executing,
    /// The result is delivered and paid.
    Completed,
    /// It cannot be executed any more, and nothing was charged.
    Rejected,
    /// Charged, and not delivered.
    Disputed,
}

impl ContractState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signed => "SIGNED",
            Self::Executing => "EXECUTING",
            Self::Completed => "COMPLETED",
            Self::Rejected => "REJECTED",
            Self::Disputed => "DISPUTED",
        }
    }

    /// Whether a stored state is one that no execution leaves.
    pub fn is_final(state: &str) -> bool {
        [Self::Completed, Self::Rejected, Self::Disputed].iter().any(|end| end.as_str() == state)
    }

    /// The state of a contract whose last run is this one. `is_over`: it allows no other execution.
    pub fn after(run: &Run, is_over: bool) -> Self {
        match run.state() {
            State::Delivered => Self::Completed,
            State::Refundable(_) | State::Reported(_) => Self::Disputed,
            _ if run.is_unpaid_execution() && is_over => Self::Rejected,
            State::New | State::Failed(_) | State::Refused(_) => Self::Signed,
            _ => Self::Executing,
        }
    }
}
