//! The money of a run: verify, settle, the search for evidence of a settlement, the report of a refund.

use super::hire;
use super::session::Session;
use crate::edge::clock;
use crate::edge::http::{chain, facilitator};
use crate::edge::kv::config;
use crate::rules::config::{Config, Network};
use crate::rules::payment::facilitator::{checked_on_chain, needs_chain};
use crate::rules::payment::reconcile::{evidence, ChainView, Confirmation, NoCheck, Turn};
use crate::rules::payment::Payment;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Event, Evidence, Receipt};
use futures::future::join;
use std::rc::Rc;
use std::time::Duration;

/// How often a node is asked whether it confirms a facilitator's no, and the wait between. Together it is longer than
/// the time between two blocks.
const NO_CHECKS: usize = 15;
const NO_CHECK_WAIT: Duration = Duration::from_secs(1);

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
                    true => checked_on_chain(event, self.check_no(&config, payment).await),
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
            Some(PaymentContext { config, payment, last_facilitator }) => {
                let view = self.on_chain(&config, payment).await;
                let told = match view {
                    ChainView::Shown(..) => Evidence::Nothing,
                    _ => facilitator::find_evidence(&config, payment, last_facilitator.as_deref()).await,
                };
                evidence(view, told)
            }
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
        if !self.confirm().await.is_paid() {
            // Nothing is owed for a settlement that the chain does not show. The alarm looks again.
            return;
        }
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

    /// Whether the chain confirms that a facilitator has not moved the money. `None`: it does not show that yet.
    async fn check_no(&self, config: &Config, payment: &Payment) -> Option<Result<(), Receipt>> {
        let mut check = NoCheck::new(clock::now());
        for _ in 0..NO_CHECKS {
            let outcome = check.outcome(&self.on_chain(config, payment).await);
            if outcome.is_some() {
                return outcome;
            }
            worker::Delay::from(NO_CHECK_WAIT).await;
        }
        None
    }

    /// What the chain shows of the payment.
    async fn on_chain(&self, config: &Config, payment: &Payment) -> ChainView {
        let view = match network_of(config, payment) {
            Some(network) => chain::find_evidence(network, payment, self.record.started_at).await,
            None => ChainView::NoNode,
        };
        if let paid @ Confirmation::Paid(_) = Confirmation::of(&view) {
            self.data.borrow_mut().stats.confirmation = paid;
        }
        view
    }

    /// Asks the chain whether a run that a facilitator says is paid is paid, unless that is known. The caller does not
    /// wait for it.
    pub(super) async fn confirm(&self) -> Confirmation {
        let (receipt, known) = {
            let data = self.data.borrow();
            (data.run.receipt().cloned(), data.stats.confirmation.clone())
        };
        let Some(receipt) = receipt.filter(|_| known == Confirmation::Awaited) else { return known };
        let Some(mut turn) = self.confirmation_turn().await else { return known };
        // Another task of this run may have asked while this one waited.
        let known = self.data.borrow().stats.confirmation.clone();
        if known != Confirmation::Awaited {
            return known;
        }
        let Some(PaymentContext { config, payment, .. }) = self.payment_context().await else { return known };
        let view = match network_of(&config, payment) {
            Some(network) => chain::confirm(network, payment, &receipt.transaction, self.record.started_at).await,
            None => ChainView::NoNode,
        };
        let confirmation = Confirmation::of(&view);
        turn.view = Some(view);
        if confirmation == Confirmation::Refuted {
            worker::console_error!("facilitator: settle: the chain has no such settlement, and can have none any more");
        }
        self.data.borrow_mut().stats.confirmation = confirmation.clone();
        confirmation
    }

    /// Waits until no other run of the wallet asks the chain. `None`: the node does not answer, and it is too early to
    /// ask it again.
    async fn confirmation_turn(&self) -> Option<TurnGuard<'_>> {
        loop {
            let version = self.shared.updates.version();
            let turn = self.shared.confirmation_turns.borrow_mut().take(clock::now());
            match turn {
                Turn::Now => return Some(TurnGuard { session: self, view: None }),
                Turn::TooEarly => return None,
                Turn::Taken => self.shared.updates.changed_since(version).await,
            }
        }
    }
}

/// Ends a turn of [`ConfirmationTurns`](crate::rules::payment::reconcile::ConfirmationTurns), also when it panics.
struct TurnGuard<'a> {
    session: &'a Session,
    view: Option<ChainView>,
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        let shared = &self.session.shared;
        shared.confirmation_turns.borrow_mut().end(self.view.as_ref(), clock::now());
        shared.updates.notify();
    }
}

fn network_of<'a>(config: &'a Config, payment: &Payment) -> Option<&'a Network> {
    config.networks.iter().find(|network| network.id == payment.network)
}
