//! All of HIRE that the engine has. The other files call it at four places of a run's life, and each call does nothing
//! where the run executes no contract:
//!
//! - [`verified`]: the payment is good, so the contract is being executed.
//! - [`deliver`]: Claude's answer is whole. It becomes the result that the contract asks for, or an error.
//! - [`ended`]: the run has come to rest. The contract's state is stored, and a webhook tells the seeker.
//! - [`forgotten`]: the run is deleted, and its files with it.
//!
//! Beside these, the driver sends what [`due_webhook`] gives it, and a call of Claude asks [`take_repair`] for the
//! answer that is to be repaired.

use super::session::{log_fault, Session};
use crate::edge::d1::contracts;
use crate::edge::http::webhooks;
use crate::edge::kv::config;
use crate::edge::vault::Vault;
use crate::edge::{clock, fault, files};
use crate::rules::hire::context::{ContractContext, DeliverableError};
use crate::rules::hire::contract::ContractState;
use crate::rules::hire::task;
use crate::rules::hire::task::TaskReport;
use crate::rules::hire::webhook::{Outcome, Webhook};
use crate::rules::record::run_record::RunRecord;
use crate::rules::refusal::{ModelError, Refusal};
use crate::rules::run::{Millis, State, RETENTION};
use crate::wire::timestamp;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

/// What a session keeps in memory for its contract.
pub(super) struct ContractSession {
    /// An answer that Claude is to repair, and what is wrong with it.
    repair: RefCell<Option<(String, String)>>,
    /// The last message to the seeker.
    webhook: RefCell<Option<Webhook>>,
    is_sending: Cell<bool>,
}

impl ContractSession {
    pub(super) fn new(webhook: Option<Webhook>) -> Self {
        Self { repair: RefCell::default(), webhook: RefCell::new(webhook), is_sending: Cell::new(false) }
    }

    /// When the webhook is to be sent next.
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.webhook.borrow().as_ref().and_then(|webhook| webhook.due).filter(|_| !self.is_sending.get())
    }

    /// Whether no webhook is being sent or will be.
    pub(super) fn is_idle(&self) -> bool {
        self.deadline().is_none() && !self.is_sending.get()
    }
}

/// The run and its contract. This is the one place where the engine looks whether there is a contract.
fn contract_run(session: &Session) -> Option<(Rc<RunRecord>, ContractContext)> {
    let record = session.record.clone();
    let contract = record.contract_context.clone()?;
    Some((record, contract))
}

// A run's life.

pub(super) async fn verified(session: &Session) {
    if let Some((_, contract)) = contract_run(session) {
        // The state at the run's end is written until it is stored. Until then only this keeps the contract from making
        // room for others, so a failure is not taken for final.
        for _ in 0..3 {
            if contracts::set_state(&session.env, &contract.contract_id, ContractState::Executing).await.is_ok() {
                break;
            }
        }
    }
}

/// The answer that the next call of Claude is to repair, and what is wrong with it.
pub(super) fn take_repair(session: &Session) -> Option<(String, String)> {
    session.contract.repair.take()
}

/// Stores the result of the contract. An answer of another form than agreed is shown to Claude once, to be repaired.
pub(super) async fn deliver(session: &Session) -> Result<(), ModelError> {
    let Some((record, contract)) = contract_run(session) else { return Ok(()) };
    let items = {
        let data = session.data.borrow();
        contract.deliverables(data.transcript.text(), data.stats.stop_reason.as_ref())
    };
    match items {
        Ok(items) => {
            let stored = files::store(&session.env, &record.run_id, &items).await;
            stored.map_err(|_| ModelError::NotStored)
        }
        Err(DeliverableError::Truncated) => Err(ModelError::Truncated),
        Err(DeliverableError::Mismatch(mismatch)) => {
            let mut data = session.data.borrow_mut();
            let answer = data.transcript.text().to_owned();
            let repair = !std::mem::replace(&mut data.stats.repaired, true) && !answer.trim().is_empty();
            if repair {
                session.contract.repair.replace(Some((answer, mismatch)));
            }
            Err(ModelError::OutputMismatch { repair })
        }
    }
}

/// Stores the contract's state, and the webhook if this end is news to the seeker. On an error the ledger's row is not
/// written either, and both are tried again.
pub(super) async fn ended(session: &Session) -> Result<(), Refusal> {
    let Some((record, contract)) = contract_run(session) else { return Ok(()) };
    if !is_last_execution(session)? {
        return Ok(());
    }
    let now = clock::now();
    let (state, event) = {
        let data = session.data.borrow();
        let state = ContractState::after(&data.run, contract.is_over(now));
        let event = match data.run.state() {
            State::Delivered => Some("task_completed"),
            State::Failed(_) | State::Refused(_) => Some("task_failed"),
            State::Refundable(_) | State::Reported(_) => Some("task_failed"),
            _ => None,
        };
        (state, event)
    };
    if let (Some(event), Some(_)) = (event, &contract.webhook) {
        let webhook = Webhook::new(&record.run_id, event, now);
        let is_news = session.contract.webhook.borrow().as_ref().is_none_or(|last| last.id != webhook.id);
        if is_news {
            save_webhook(session, webhook);
        }
    }
    contracts::set_state(&session.env, &contract.contract_id, state).await
}

/// Whether the contract was not executed again since. What an earlier execution has to say comes too late then.
fn is_last_execution(session: &Session) -> Result<bool, Refusal> {
    let last = session.store.last_number(&session.name).map_err(fault("wallet storage"))?;
    Ok(last.is_none_or(|last| last <= session.number))
}

/// The run has been deleted from storage; `session` still has it.
pub(crate) async fn forgotten(session: &Session) {
    let Some((record, contract)) = contract_run(session) else { return };
    let in_doubt = matches!(session.data.borrow().run.state(), State::SettlementUnknown { .. });
    if in_doubt {
        // Nobody will find out any more whether it was paid.
        let _ = contracts::set_state(&session.env, &contract.contract_id, ContractState::Disputed).await;
    }
    let items = contract.accepted_deliverables(session.data.borrow().transcript.text());
    // The bucket's lifecycle rule deletes what cannot be deleted now (docs/operators.md, "Deploy").
    let _ = files::delete(&session.env, &record.run_id, &items).await;
}

// What the seeker is told.

/// How the task stands. `None`: the run executes no contract.
pub(crate) fn task_report(session: &Session) -> Option<TaskReport> {
    let (record, contract) = contract_run(session)?;
    let vault = Vault::new(&session.env).ok();
    let data = session.data.borrow();
    let expires = data.run.rested_at().saturating_add(RETENTION);
    let link = |number: usize, item: &_| {
        let path = vault.as_ref().map(|vault| files::link(vault, &record.run_id, number, item, expires));
        format!("{}{}", contract.origin, path.unwrap_or_default())
    };
    let (facts, text) = (record.task_facts(&data.stats), data.transcript.text());
    let mut report = task::task_report(&facts, &contract, &data.run, text, clock::now(), link);
    if let (Some(webhook), Some((url, _))) = (session.contract.webhook.borrow().as_ref(), &contract.webhook) {
        insert(&mut report, "webhook", webhook.describe(url));
    }
    Some(report)
}

fn insert(report: &mut TaskReport, name: &str, value: Value) {
    if let Some(document) = report.document.as_object_mut() {
        document.insert(name.to_owned(), value);
    }
}

fn save_webhook(session: &Session, webhook: Webhook) {
    log_fault(session.store.save_webhook(session.number, &webhook));
    session.contract.webhook.replace(Some(webhook));
    session.wake(clock::now());
    session.updates.notify();
    session.transitions.notify();
}

/// Sends the webhook once, if it is due. The driver runs what this gives back.
pub(super) fn due_webhook(session: &Session) -> Option<impl Future<Output = ()> + '_> {
    let is_due = session.contract.deadline().is_some_and(|due| due <= clock::now());
    let sending = is_due.then(|| Sending::new(session))?;
    Some(async move {
        send_webhook(session).await;
        drop(sending);
        // Whether the run may be deleted has changed.
        session.save();
    })
}

/// Marks the webhook as being sent for as long as it is held, also when sending panics.
struct Sending<'a>(&'a Session);

impl<'a> Sending<'a> {
    fn new(session: &'a Session) -> Self {
        session.contract.is_sending.set(true);
        Self(session)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.contract.is_sending.set(false);
    }
}

async fn send_webhook(session: &Session) {
    let Some(mut webhook) = session.contract.webhook.borrow().clone() else { return };
    let outcome = match message(session, &webhook) {
        Some(message) => post(session, &message, &webhook).await,
        // The contract was executed again meanwhile, and the end of that execution has its own message.
        None => Outcome::Refused("overtaken by another execution"),
    };
    worker::console_log!("webhook: {} attempt {}: {outcome:?}", webhook.event, webhook.attempts);
    let is_current = session.contract.webhook.borrow().as_ref().is_some_and(|current| current.id == webhook.id);
    if is_current {
        webhook.record_attempt(outcome, clock::now());
        save_webhook(session, webhook);
    }
}

struct Message {
    url: String,
    sealed_secret: String,
    body: String,
}

/// The message that a webhook carries. `None`: the execution that it is about is not the last one any more.
fn message(session: &Session, webhook: &Webhook) -> Option<Message> {
    let (_, contract) = contract_run(session)?;
    let mut report = task_report(session).filter(|report| !report.pending)?;
    let (url, sealed_secret) = contract.webhook?;
    insert(&mut report, "event", webhook.event.clone().into());
    insert(&mut report, "timestamp", timestamp::format(webhook.at).into());
    if let Some(document) = report.document.as_object_mut() {
        document.remove("webhook");
    }
    let is_last = is_last_execution(session).unwrap_or(true);
    is_last.then(|| Message { url, sealed_secret, body: report.document.to_string() })
}

async fn post(session: &Session, message: &Message, webhook: &Webhook) -> Outcome {
    let opened = async {
        let (_, contract) = contract_run(session)?;
        let vault = Vault::new(&session.env).map_err(fault("vault")).ok()?;
        let owner = contracts::secret_owner(&contract.contract_id);
        let secret = vault.open(&owner, &message.sealed_secret).await.map_err(fault("webhook secret")).ok()?;
        Some((config::load(&session.env).await.ok()?, String::from_utf8(secret).ok()?))
    };
    match opened.await {
        Some((config, secret)) => webhooks::send(&config, &message.url, &secret, webhook, &message.body).await,
        None => Outcome::NoAnswer("a fault of ours"),
    }
}
