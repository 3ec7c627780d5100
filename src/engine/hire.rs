//! What of a run is about its contract: the result held against it, and who hears of its end.

use super::Session;
use crate::edge::d1::contracts;
use crate::edge::http::webhooks;
use crate::edge::kv::config;
use crate::edge::objects::payers;
use crate::edge::objects::run_store::Reservation;
use crate::edge::vault::Vault;
use crate::edge::{clock, fault, files};
use crate::rules::hire::context::{ContractContext, DeliverableError};
use crate::rules::hire::contract::ContractState;
use crate::rules::hire::task::{task_report, TaskReport};
use crate::rules::hire::webhook::{Outcome, Webhook};
use crate::rules::ids::object_of_contract;
use crate::rules::record::run_record::RunRecord;
use crate::rules::refusal::{ModelError, Refusal};
use crate::rules::run::{Event, Millis, State, RETENTION};
use serde_json::Value;
use std::rc::Rc;

impl Session {
    /// The run and its contract, where it has one.
    pub(super) fn contract_run(&self) -> Option<(Rc<RunRecord>, ContractContext)> {
        let record = self.record()?;
        let contract_context = record.contract_context.clone()?;
        Some((record, contract_context))
    }

    /// Claude's answer is whole: it becomes the result that the contract asks for, or a fault. What fails the
    /// form is shown to Claude once.
    pub(super) async fn deliver(&self) -> Result<(), ModelError> {
        let (record, contract_context) = self.contract_run().ok_or(ModelError::Upstream)?;
        let items = {
            let data = self.data.borrow();
            contract_context.deliverables(data.transcript.text(), data.stats.stop_reason.as_ref())
        };
        match items {
            Ok(items) => {
                let stored = files::store(&self.env, &record.run_id, &items).await;
                stored.map_err(|_| ModelError::NotStored)?;
                self.tell(Event::Ended);
                Ok(())
            }
            Err(DeliverableError::Truncated) => Err(ModelError::Truncated),
            Err(DeliverableError::Mismatch(wrong)) => {
                let mut data = self.data.borrow_mut();
                let answer = data.transcript.text().to_owned();
                let repair = !std::mem::replace(&mut data.stats.repaired, true) && !answer.trim().is_empty();
                if repair {
                    self.repair.replace(Some((answer, wrong)));
                }
                Err(ModelError::OutputMismatch { repair })
            }
        }
    }

    /// How the task stands, for its seeker.
    pub(crate) fn task(&self) -> Option<TaskReport> {
        let (record, contract_context) = self.contract_run()?;
        let vault = Vault::new(&self.env).ok();
        let data = self.data.borrow();
        let expires = data.run.rested_at().saturating_add(RETENTION);
        let link = |number: usize, item: &_| {
            let path = vault.as_ref().map(|vault| files::link(vault, &record.run_id, number, item, expires));
            format!("{}{}", contract_context.origin, path.unwrap_or_default())
        };
        let (facts, text) = (record.task_facts(&data.stats), data.transcript.text());
        let mut report = task_report(&facts, &contract_context, &data.run, text, clock::now(), link);
        drop(data);
        if let (Some(webhook), Some((url, _))) = (self.webhook.borrow().as_ref(), &contract_context.webhook) {
            report.add("webhook", webhook.describe(url));
        }
        Some(report)
    }

    /// Its contract is being executed. Where that cannot be kept now, its end will be.
    pub(super) async fn contract_is_under_way(&self) {
        if let Some((_, contract_context)) = self.contract_run() {
            let _ = contracts::set_state(&self.env, &contract_context.contract_id, ContractState::Executing).await;
        }
    }

    /// The run has come to rest: its contract's state is kept, and the seeker is to hear of it. Before the
    /// ledger does, so that it is done again if it is not done.
    pub(super) async fn record_contract_outcome(&self) -> Result<(), Refusal> {
        let Some((record, contract_context)) = self.contract_run() else {
            return Ok(());
        };
        let now = clock::now();
        let (state, event) = {
            let data = self.data.borrow();
            let state = ContractState::after(&data.run, contract_context.is_over(now));
            let event = match data.run.state() {
                State::Delivered => Some("task_completed"),
                State::Failed(_) | State::Refused(_) => Some("task_failed"),
                State::Refundable(_) | State::Reported(_) => Some("task_failed"),
                _ => None,
            };
            (state, event)
        };
        if let (ContractState::Completed, Some(payment)) = (state, &record.payment) {
            // If it cannot be told, it counts as in vain for a day.
            let _ =
                payers::executions_paid(&self.env, payment, &object_of_contract(&contract_context.contract_id)).await;
        }
        if let (Some(event), Some(_)) = (event, &contract_context.webhook) {
            let webhook = Webhook::new(&record.run_id, event, now);
            if self.webhook.borrow().as_ref().is_none_or(|before| before.id != webhook.id) {
                self.keep(webhook);
            }
        }
        contracts::set_state(&self.env, &contract_context.contract_id, state).await
    }

    fn keep(&self, webhook: Webhook) {
        crate::engine::log_fault(self.store.keep_webhook(&webhook));
        self.webhook.replace(Some(webhook));
        self.updates.notify();
    }

    /// When the seeker is to be told next.
    pub(super) fn webhook_due(&self) -> Option<Millis> {
        self.webhook.borrow().as_ref().and_then(|webhook| webhook.due).filter(|_| !self.notifying.get())
    }

    /// Tells the seeker, once.
    pub(super) async fn notify(&self) {
        let webhook = self.webhook.borrow().clone();
        if let Some(mut webhook) = webhook {
            let outcome = match self.message(&webhook) {
                Some((url, secret, body)) => self.send(&url, &secret, &webhook, &body).await,
                // Executed again meanwhile: the next end has a message of its own.
                None => Outcome::Refused("overtaken by another execution"),
            };
            worker::console_log!("webhook: {} attempt {}: {outcome:?}", webhook.event, webhook.attempts);
            let current = self.webhook.borrow().as_ref().is_some_and(|now| now.id == webhook.id);
            if current {
                webhook.record_attempt(outcome, clock::now());
                self.keep(webhook);
            }
        }
        self.notifying.set(false);
    }

    async fn send(&self, url: &str, sealed: &str, webhook: &Webhook, body: &str) -> Outcome {
        let opened = async {
            let (_, contract_context) = self.contract_run()?;
            let vault = Vault::new(&self.env).map_err(fault("vault")).ok()?;
            let owner = contracts::secret_owner(&contract_context.contract_id);
            let secret = vault.open(&owner, sealed).await.map_err(fault("webhook secret")).ok()?;
            Some((config::load(&self.env).await.ok()?, String::from_utf8(secret).ok()?))
        };
        match opened.await {
            Some((config, secret)) => webhooks::send(&config, url, &secret, webhook, body).await,
            None => Outcome::NoAnswer("a fault of ours"),
        }
    }

    /// Where a message goes, the sealed secret, and its text.
    fn message(&self, webhook: &Webhook) -> Option<(String, String, String)> {
        let (record, contract_context) = self.contract_run()?;
        let mut told = self.task().filter(|told| !told.pending)?;
        let (url, secret) = contract_context.webhook?;
        let same = webhook.id == Webhook::new(&record.run_id, &webhook.event, 0).id;
        told.add("event", webhook.event.clone().into());
        told.add("timestamp", crate::wire::timestamp::format(webhook.at).into());
        if let Some(document) = told.document.as_object_mut() {
            document.remove("webhook");
        }
        same.then(|| (url, secret, told.document.to_string()))
    }

    /// Whom the payment of this object was reservation to, if it is reservation at `now`.
    pub(crate) fn reservation(&self, now: Millis) -> worker::Result<Option<Reservation>> {
        Ok(self.store.reservation()?.filter(|reservation| reservation.until > now))
    }

    /// Whether the payment was reservation, and there is nothing else here any more.
    pub(crate) fn had_reservation(&self, now: Millis) -> worker::Result<bool> {
        Ok(self.store.reservation()?.is_some_and(|reservation| reservation.until <= now))
    }

    /// Lends the payment to a contract's object, unless a run has begun with it, or somebody has it.
    pub(crate) fn reserve(&self, to: &str, until: Millis, now: Millis) -> worker::Result<bool> {
        let taken = !self.data.borrow().run.is_replaceable()
            || self.reservation(now)?.is_some_and(|reservation| reservation.to != to);
        if !taken {
            self.store.reserve(&Reservation { to: to.to_owned(), until })?;
        }
        Ok(!taken)
    }

    /// The run is forgotten, with its settlement in doubt: nobody will know any more.
    pub(crate) async fn give_up(&self) -> Result<(), Refusal> {
        let in_doubt = matches!(self.data.borrow().run.state(), State::SettlementUnknown { .. });
        match self.contract_run().filter(|_| in_doubt) {
            Some((_, contract_context)) => {
                contracts::set_state(&self.env, &contract_context.contract_id, ContractState::Disputed).await
            }
            None => Ok(()),
        }
    }

    /// Deletes the files of the run, which has been forgotten.
    pub(crate) async fn delete_files(&self) -> Result<(), Refusal> {
        let Some((record, contract_context)) = self.contract_run() else {
            return Ok(());
        };
        let items = contract_context.accepted_deliverables(self.data.borrow().transcript.text());
        files::delete(&self.env, &record.run_id, &items).await
    }
}

impl TaskReport {
    fn add(&mut self, name: &str, value: Value) {
        if let Some(document) = self.document.as_object_mut() {
            document.insert(name.to_owned(), value);
        }
    }
}
