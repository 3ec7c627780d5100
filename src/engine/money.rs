//! What of a run is about money: verify, settle, the search for evidence, the report of a refund.

use super::Session;
use crate::edge::http::{chain, facilitator};
use crate::edge::kv::config;
use crate::rules::config::Config;
use crate::rules::payment::facilitator::{checked_on_chain, needs_chain};
use crate::rules::payment::Payment;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Event, Evidence};
use std::rc::Rc;

impl Session {
    /// The payment, with the configuration of this moment and the facilitator that was asked last.
    async fn payment(&self) -> Option<(Rc<Config>, Payment, Option<String>)> {
        let config = config::load(&self.env).await.ok()?;
        let payment = self.record()?.payment.clone()?;
        let before = self.data.borrow().stats.facilitator.clone();
        Some((config, payment, before))
    }

    fn asked(&self, facilitator: Option<String>) {
        let mut data = self.data.borrow_mut();
        data.stats.facilitator = facilitator.or(data.stats.facilitator.take());
    }

    pub(super) async fn verify(&self) {
        let event = match self.payment().await {
            Some((config, payment, _)) => {
                let (event, facilitator) = facilitator::verify(&config, &payment).await;
                self.asked(facilitator);
                if event == Event::Verified {
                    self.contract_is_under_way().await;
                }
                event
            }
            None => Event::VerifyRefused(Refusal::Internal),
        };
        self.tell(event);
    }

    /// Looks for what became of a settlement: on the chain, and where that says nothing, at the facilitators.
    pub(super) async fn reconcile(&self) {
        let evidence = match self.payment().await {
            Some((config, payment, before)) => match self.on_chain(&config, &payment).await {
                Some(found) => found,
                None => facilitator::find_evidence(&config, &payment, before.as_deref()).await,
            },
            None => Evidence::Nothing,
        };
        self.tell(Event::Reconciled(evidence));
    }

    /// What the chain shows of the payment; `None` where no node can say.
    async fn on_chain(&self, config: &Config, payment: &Payment) -> Option<Evidence> {
        let network = config.networks.iter().find(|n| n.id == payment.network)?;
        let since = self.record()?.started_at;
        chain::find_evidence(network, payment, since).await
    }

    pub(super) async fn report(&self) {
        let (receipt, fault) = {
            let data = self.data.borrow();
            (data.run.receipt().cloned(), data.run.model_error())
        };
        let (Some((config, payment, before)), Some(receipt)) = (self.payment().await, receipt) else { return };
        let reason = fault.map_or(Refusal::Refundable, Refusal::Claude).code();
        let (transaction, before) = (&receipt.transaction, before.as_deref());
        if facilitator::report(&self.env, &config, &payment, before, transaction, reason).await {
            self.tell(Event::Reported);
        }
    }

    pub(super) async fn settle(&self) {
        let event = match self.payment().await {
            Some((config, payment, before)) => {
                let (event, facilitator) = facilitator::settle(&config, &payment, before.as_deref()).await;
                self.asked(facilitator);
                match needs_chain(&event) {
                    true => checked_on_chain(event, self.on_chain(&config, &payment).await),
                    false => event,
                }
            }
            None => Event::SettleNotSent,
        };
        self.tell(event);
    }
}
