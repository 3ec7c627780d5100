//! What of a run is about its contract: the result held against it, and who hears of its end.

use super::Session;
use crate::edge::store::Lent;
use crate::edge::vault::Vault;
use crate::edge::{clock, config, contracts, fault, files, payers, webhooks};
use crate::rules::contract::ContractState;
use crate::rules::dossier::Dossier;
use crate::rules::refusal::{ClaudeFault, Refusal};
use crate::rules::run::{Event, Millis, State, KEEP};
use crate::rules::task::{object_of_contract, told, Engagement, Told, Unfit};
use crate::rules::webhook::{Outcome, Webhook};
use serde_json::Value;
use std::rc::Rc;

impl Session {
    /// The run and its contract, where it has one.
    pub(super) fn engaged(&self) -> Option<(Rc<Dossier>, Engagement)> {
        let dossier = self.dossier()?;
        let engagement = dossier.engagement.clone()?;
        Some((dossier, engagement))
    }

    /// Claude's answer is whole: it becomes the result that the contract asks for, or a fault. What fails the
    /// form is shown to Claude once.
    pub(super) async fn deliver(&self) -> Result<(), ClaudeFault> {
        let (dossier, engagement) = self.engaged().ok_or(ClaudeFault::Upstream)?;
        let items = {
            let desk = self.desk.borrow();
            engagement.items(desk.transcript.text(), desk.tally.stop_reason.as_ref())
        };
        match items {
            Ok(items) => {
                let stored = files::store(&self.env, &dossier.run_id, &items).await;
                stored.map_err(|_| ClaudeFault::NotStored)?;
                self.tell(Event::Ended);
                Ok(())
            }
            Err(Unfit::Truncated) => Err(ClaudeFault::Truncated),
            Err(Unfit::Mismatch(wrong)) => {
                let mut desk = self.desk.borrow_mut();
                let answer = desk.transcript.text().to_owned();
                let repair = !std::mem::replace(&mut desk.tally.repaired, true) && !answer.trim().is_empty();
                if repair {
                    self.mend.replace(Some((answer, wrong)));
                }
                Err(ClaudeFault::OutputMismatch { repair })
            }
        }
    }

    /// How the task stands, for its seeker.
    pub fn task(&self) -> Option<Told> {
        let (dossier, engagement) = self.engaged()?;
        let vault = Vault::new(&self.env).ok();
        let desk = self.desk.borrow();
        let expires = desk.run.rested_at().saturating_add(KEEP);
        let link = |number: usize, item: &_| {
            let path = vault.as_ref().map(|vault| files::link(vault, &dossier.run_id, number, item, expires));
            format!("{}{}", engagement.origin, path.unwrap_or_default())
        };
        let mut told = told(&dossier, &engagement, &desk.run, &desk.tally, desk.transcript.text(), clock::now(), link);
        drop(desk);
        if let (Some(webhook), Some((url, _))) = (self.webhook.borrow().as_ref(), &engagement.webhook) {
            told.add("webhook", webhook.describe(url));
        }
        Some(told)
    }

    /// Its contract is being executed. Where that cannot be kept now, its end will be.
    pub(super) async fn contract_is_under_way(&self) {
        if let Some((_, engagement)) = self.engaged() {
            let _ = contracts::set_state(&self.env, &engagement.contract_id, ContractState::Executing).await;
        }
    }

    /// The run has come to rest: its contract's state is kept, and the seeker is to hear of it. Before the
    /// ledger does, so that it is done again if it is not done.
    pub(super) async fn conclude(&self) -> Result<(), Refusal> {
        let Some((dossier, engagement)) = self.engaged() else {
            return Ok(());
        };
        let now = clock::now();
        let (state, event) = {
            let desk = self.desk.borrow();
            let state = ContractState::after(&desk.run, engagement.is_over(now));
            let event = match desk.run.state() {
                State::Delivered => Some("task_completed"),
                State::Failed(_) | State::Refused(_) => Some("task_failed"),
                State::Refundable(_) | State::Reported(_) => Some("task_failed"),
                _ => None,
            };
            (state, event)
        };
        if let (ContractState::Completed, Some(payment)) = (state, &dossier.payment) {
            // If it cannot be told, it counts as in vain for a day.
            let _ = payers::worked(&self.env, payment, &object_of_contract(&engagement.contract_id)).await;
        }
        if let (Some(event), Some(_)) = (event, &engagement.webhook) {
            let webhook = Webhook::new(&dossier.run_id, event, now);
            if self.webhook.borrow().as_ref().is_none_or(|before| before.id != webhook.id) {
                self.keep(webhook);
            }
        }
        contracts::set_state(&self.env, &engagement.contract_id, state).await
    }

    fn keep(&self, webhook: Webhook) {
        super::log_fault(self.store.keep_webhook(&webhook));
        self.webhook.replace(Some(webhook));
        self.bell.ring();
    }

    /// When the seeker is to be told next.
    pub(super) fn mail_due(&self) -> Option<Millis> {
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
                webhook.tried(outcome, clock::now());
                self.keep(webhook);
            }
        }
        self.notifying.set(false);
    }

    async fn send(&self, url: &str, sealed: &str, webhook: &Webhook, body: &str) -> Outcome {
        let opened = async {
            let (_, engagement) = self.engaged()?;
            let vault = Vault::new(&self.env).map_err(fault("vault")).ok()?;
            let owner = contracts::secret_owner(&engagement.contract_id);
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
        let (dossier, engagement) = self.engaged()?;
        let mut told = self.task().filter(|told| !told.pending)?;
        let (url, secret) = engagement.webhook?;
        let same = webhook.id == Webhook::new(&dossier.run_id, &webhook.event, 0).id;
        told.add("event", webhook.event.clone().into());
        told.add("timestamp", crate::wire::timestamp::format(webhook.at).into());
        if let Some(document) = told.document.as_object_mut() {
            document.remove("webhook");
        }
        same.then(|| (url, secret, told.document.to_string()))
    }

    /// Whom the payment of this object was lent to, if it is lent at `now`.
    pub fn lent(&self, now: Millis) -> worker::Result<Option<Lent>> {
        Ok(self.store.lent()?.filter(|lent| lent.until > now))
    }

    /// Whether the payment was lent, and there is nothing else here any more.
    pub fn was_lent(&self, now: Millis) -> worker::Result<bool> {
        Ok(self.store.lent()?.is_some_and(|lent| lent.until <= now))
    }

    /// Lends the payment to a contract's object, unless a run has begun with it, or somebody has it.
    pub fn lend(&self, to: &str, until: Millis, now: Millis) -> worker::Result<bool> {
        let taken = !self.desk.borrow().run.is_blank() || self.lent(now)?.is_some_and(|lent| lent.to != to);
        if !taken {
            self.store.lend(&Lent { to: to.to_owned(), until })?;
        }
        Ok(!taken)
    }

    /// The run is forgotten, with its settlement in doubt: nobody will know any more.
    pub async fn give_up(&self) -> Result<(), Refusal> {
        let in_doubt = matches!(self.desk.borrow().run.state(), State::SettlementUnknown { .. });
        match self.engaged().filter(|_| in_doubt) {
            Some((_, engagement)) => {
                contracts::set_state(&self.env, &engagement.contract_id, ContractState::Disputed).await
            }
            None => Ok(()),
        }
    }

    /// Deletes the files of the run, which has been forgotten.
    pub async fn delete_files(&self) -> Result<(), Refusal> {
        let Some((dossier, engagement)) = self.engaged() else {
            return Ok(());
        };
        let items = engagement.delivered(self.desk.borrow().transcript.text());
        files::delete(&self.env, &dossier.run_id, &items).await
    }
}

impl Told {
    fn add(&mut self, name: &str, value: Value) {
        if let Some(document) = self.document.as_object_mut() {
            document.insert(name.to_owned(), value);
        }
    }
}
