//! What of a run is about money: verify, settle, the search for evidence, the report of a refund.

use super::Session;
use crate::edge::{chain, config, facilitator};
use crate::rules::config::Config;
use crate::rules::quote::Payment;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Event, Evidence};
use std::rc::Rc;

impl Session {
    /// The payment, with the configuration of this moment and the facilitator that was asked last.
    async fn payment(&self) -> Option<(Rc<Config>, Payment, Option<String>)> {
        let config = config::load(&self.env).await.ok()?;
        let payment = self.dossier()?.payment.clone()?;
        let before = self.desk.borrow().tally.facilitator.clone();
        Some((config, payment, before))
    }

    fn asked(&self, facilitator: Option<String>) {
        let mut desk = self.desk.borrow_mut();
        desk.tally.facilitator = facilitator.or(desk.tally.facilitator.take());
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
    pub(super) async fn look(&self) {
        let evidence = match self.payment().await {
            Some((config, payment, before)) => match self.on_chain(&config, &payment).await {
                Some(found) => found,
                None => facilitator::look(&config, &payment, before.as_deref()).await,
            },
            None => Evidence::Nothing,
        };
        self.tell(Event::Looked(evidence));
    }

    /// What the chain shows of the payment; `None` where no node can say.
    async fn on_chain(&self, config: &Config, payment: &Payment) -> Option<Evidence> {
        let network = config.networks.iter().find(|n| n.id == payment.network)?;
        let since = self.dossier()?.started_at;
        chain::look(network, payment, since).await
    }

    pub(super) async fn report(&self) {
        let (receipt, fault) = {
            let desk = self.desk.borrow();
            (desk.run.receipt().cloned(), desk.run.fault())
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
                match event {
                    // A facilitator that takes the money and says no would take it twice.
                    Event::SettleRejected(_) => match self.on_chain(&config, &payment).await {
                        Some(Evidence::Paid(receipt)) => Event::Settled(receipt),
                        _ => event,
                    },
                    event => event,
                }
            }
            None => Event::SettleNotSent,
        };
        self.tell(event);
    }
}
