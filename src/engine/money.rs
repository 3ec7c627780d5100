//! The money of a run: verify, settle, the search for evidence of a settlement, the report of a refund.

use super::hire;
use super::session::Session;
use crate::edge::http::{chain, facilitator};
use crate::edge::kv::config;
use crate::rules::config::Config;
use crate::rules::payment::facilitator::{checked_on_chain, needs_chain};
use crate::rules::payment::Payment;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Event, Evidence};
use futures::future::join;
use std::rc::Rc;

/// What a facilitator is asked with.
struct PaymentContext<'a> {
    /// As it is now: it may have changed since the run began.
    config: Rc<Config>,
    payment: &'a Payment,
    /// The facilitator that was asked last, by its URL. It is the first to be asked next.
    last_facilitator: Option<String>,
}

impl Session {
    pub(super) async fn verify(&self) {
        let (verified, sealed) = join(self.call_verify(), self.seal_prompt()).await;
        let event = match (verified, sealed) {
            (Event::Verified, Err(refusal)) => Event::VerifyRefused(refusal),
            (event, _) => event,
        };
        if event == Event::Verified {
            hire::verified(self).await;
        }
        self.handle_event(event);
    }

    async fn call_verify(&self) -> Event {
        if let Some(facilitator) = self.verified_by.take() {
            self.note_facilitator(Some(facilitator));
            return Event::Verified;
        }
        let Some(PaymentContext { config, payment, .. }) = self.payment_context().await else {
            return Event::VerifyRefused(Refusal::Internal);
        };
        let (event, facilitator) = facilitator::verify(&config, payment).await;
        self.note_facilitator(facilitator);
        event
    }

    pub(super) async fn settle(&self) {
        let event = match self.payment_context().await {
            Some(PaymentContext { config, payment, last_facilitator }) => {
                let (event, facilitator) = facilitator::settle(&config, payment, last_facilitator.as_deref()).await;
                self.note_facilitator(facilitator);
                match needs_chain(&event) {
                    true => checked_on_chain(event, self.on_chain(&config, payment).await),
                    false => event,
                }
            }
            None => Event::SettleNotSent,
        };
        self.handle_event(event);
        // The receipt is stored with the next text, which may be far away while Claude thinks.
        let is_silent = {
            let data = self.data.borrow();
            data.run.receipt().is_some() && data.run.is_busy() && data.transcript.is_empty()
        };
        if is_silent {
            self.save();
        }
    }

    /// Finds out what became of a settlement: on the chain and, where no node can say, from the facilitators.
    pub(super) async fn reconcile(&self) {
        let evidence = match self.payment_context().await {
            Some(PaymentContext { config, payment, last_facilitator }) => match self.on_chain(&config, payment).await {
                Some(evidence) => evidence,
                None => facilitator::find_evidence(&config, payment, last_facilitator.as_deref()).await,
            },
            None => Evidence::Nothing,
        };
        self.handle_event(Event::Reconciled(evidence));
    }

    /// Reports the refund that the payer is owed.
    pub(super) async fn report(&self) {
        let (receipt, error) = {
            let data = self.data.borrow();
            (data.run.receipt().cloned(), data.run.model_error())
        };
        let (Some(context), Some(receipt)) = (self.payment_context().await, receipt) else { return };
        let PaymentContext { config, payment, last_facilitator } = context;
        let reason = error.map_or(Refusal::Refundable, Refusal::Claude).code();
        let (transaction, last_facilitator) = (&receipt.transaction, last_facilitator.as_deref());
        if facilitator::report(&self.env, &config, payment, last_facilitator, transaction, reason).await {
            self.handle_event(Event::Reported);
        }
    }

    async fn payment_context(&self) -> Option<PaymentContext<'_>> {
        let config = config::load(&self.env).await.ok()?;
        let payment = self.record.payment.as_ref()?;
        let last_facilitator = self.data.borrow().stats.facilitator.clone();
        Some(PaymentContext { config, payment, last_facilitator })
    }

    fn note_facilitator(&self, facilitator: Option<String>) {
        let mut data = self.data.borrow_mut();
        data.stats.facilitator = facilitator.or(data.stats.facilitator.take());
    }

    /// What the chain shows of the payment. `None`: no node can say.
    async fn on_chain(&self, config: &Config, payment: &Payment) -> Option<Evidence> {
        let network = config.networks.iter().find(|network| network.id == payment.network)?;
        chain::find_evidence(network, payment, self.record.started_at).await
    }
}
