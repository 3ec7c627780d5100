//! The JSON of an error: one shape, of which each place shows the members that it needs.

use super::{Detail, Refusal, Retry};
use crate::rules::ids::run_path;
use serde::{Serialize, Serializer};

/// An error. Members are written in this order; those that are `None` are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorBody<'a> {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Detail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
    #[serde(flatten)]
    run: Option<RunLink<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    charged: Option<Charged>,
}

/// The run that an error is about. A request that has no run yet gets `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum RunLink<'a> {
    Id {
        run: Option<&'a str>,
    },
    #[serde(rename_all = "camelCase")]
    IdAndUrl {
        run: Option<&'a str>,
        run_url: Option<String>,
    },
}

/// Whether the caller was charged. It is written as `true`, `false` or `null`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charged {
    Yes,
    No,
    /// The settlement is in doubt, or belongs to another run.
    Unknown,
}

impl Charged {
    /// What can be said of the charge where `charged` is what the run's receipt says.
    pub const fn of(refusal: &Refusal, charged: bool) -> Self {
        match (refusal.knows_charge(), charged) {
            (false, _) => Self::Unknown,
            (true, true) => Self::Yes,
            (true, false) => Self::No,
        }
    }
}

impl Serialize for Charged {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Yes => serializer.serialize_bool(true),
            Self::No => serializer.serialize_bool(false),
            Self::Unknown => serializer.serialize_none(),
        }
    }
}

impl<'a> ErrorBody<'a> {
    /// The error of a request that is about no run.
    pub fn new(refusal: &Refusal) -> Self {
        Self {
            code: refusal.code(),
            message: refusal.message(),
            details: refusal.detail(),
            retryable: Some(matches!(refusal.retry(), Retry::After(_))),
            run: None,
            charged: None,
        }
    }

    /// The error in a run's status, which names run and charge itself.
    pub fn in_status(refusal: &Refusal, charged: bool) -> Self {
        Self { message: refusal.message_when(charged), ..Self::new(refusal) }
    }

    /// The error that a caller gets in the place of a run's answer.
    pub fn of_run(refusal: &Refusal, run: Option<&'a str>, charged: bool) -> Self {
        let link = RunLink::IdAndUrl { run, run_url: run.map(run_path) };
        let charge = Charged::of(refusal, charged);
        Self { run: Some(link), charged: Some(charge), ..Self::in_status(refusal, charged) }
    }

    /// The error of a contract's task. Whether another execution can succeed depends on the contract too.
    pub fn of_task(refusal: &Refusal, charged: bool, retryable: bool) -> Self {
        let charge = Charged::of(refusal, charged);
        Self { retryable: Some(retryable), charged: Some(charge), ..Self::in_status(refusal, charged) }
    }

    /// The error in the event that ends a run's stream.
    pub fn of_event(refusal: &Refusal, run: Option<&'a str>, charged: bool) -> Self {
        let charge = Charged::of(refusal, charged);
        let message = refusal.message_when(charged);
        Self { message, run: Some(RunLink::Id { run }), charged: Some(charge), ..Self::of_challenge(refusal) }
    }

    /// The error beside the terms of a 402.
    pub fn of_challenge(refusal: &Refusal) -> Self {
        Self { details: None, retryable: None, ..Self::new(refusal) }
    }

    /// What is wrong with a document that was sent to be verified: there is nothing to try again.
    pub fn of_verification(refusal: &Refusal) -> Self {
        Self { retryable: None, ..Self::new(refusal) }
    }
}
