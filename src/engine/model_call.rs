//! One conversation with Claude, from the prompt to the last event. The text goes into the transcript, and from there
//! to the callers and into checkpoints.

use super::hire;
use super::session::Session;
use crate::edge::http::claude;
use crate::edge::kv::config;
use crate::edge::vault::Vault;
use crate::edge::{clock, fault};
use crate::rules::config::{Config, Limits};
use crate::rules::model_answer::{AnswerReader, Step};
use crate::rules::model_request::asks_without_format;
use crate::rules::record::run_request::RenderedPrompt;
use crate::rules::refusal::{ModelError, Refusal};
use crate::rules::run::{Event, Millis, View};
use std::rc::Rc;

/// A checkpoint of text that is shown is made once this much has no checkpoint, in bytes. It serves a run that is given
/// up after a restart, whose caller gets the text that there is; any other restart begins the answer anew.
const CHECKPOINT_BYTES: usize = 64 * 1024;
/// Or once the last checkpoint is this old.
const CHECKPOINT_AGE: Millis = 5_000;

/// How far an answer has come.
enum Progress {
    Unfinished,
    /// It is complete. The machine does not know yet: the answer may have to satisfy a contract.
    Whole,
    /// It has broken off, and the machine has had the event.
    Broken,
}

impl Session {
    pub(super) async fn call_model(&self) {
        #[cfg(feature = "panic-probe")]
        self.panic_if_asked().await;
        let mut reader = AnswerReader::default();
        self.text_begun.set(false);
        if let Err(error) = self.converse(&mut reader).await {
            self.handle_steps(&reader, [Step::Broke(error)]);
        }
    }

    async fn converse(&self, reader: &mut AnswerReader) -> Result<(), ModelError> {
        let internal = |_| ModelError::Upstream;
        let config = config::load(&self.env).await.map_err(internal)?;
        let prompt = self.open_prompt().await.map_err(internal)?;
        let repair = hire::take_repair(self);
        let mut body = self.ask(&config, &prompt, repair).await?;
        let limits = &config.limits;
        let end = clock::now().saturating_add(limits.claude_total_seconds.saturating_mul(1000));
        let mut timer = clock::Timer::default();
        loop {
            let settle_by = self.settle_by(limits).unwrap_or(end);
            let is_window_over = || settle_by < end && clock::now() >= settle_by;
            let end = end.min(settle_by);
            let idle_seconds = match reader.has_begun() {
                true => limits.claude_idle_seconds,
                false => limits.claude_begin_seconds,
            };
            let end = end.min(clock::now().saturating_add(idle_seconds.saturating_mul(1000)));
            match timer.until(end, body.next()).await {
                None if is_window_over() => return Err(ModelError::WindowOver),
                None => return Err(ModelError::TimedOut),
                Some(Ok(Some(bytes))) => reader.push(bytes),
                Some(Ok(None)) | Some(Err(_)) => reader.end_of_stream(),
            }
            match self.handle_steps(reader, reader.steps()) {
                Progress::Unfinished => {}
                Progress::Broken => return Ok(()),
                Progress::Whole => {
                    body.finish();
                    hire::deliver(self).await?;
                    self.handle_event(Event::Ended);
                    return Ok(());
                }
            }
        }
    }

    /// Asks Claude, and a second time without structured outputs where Anthropic refuses the schema.
    async fn ask(
        &self,
        config: &Config,
        prompt: &RenderedPrompt,
        repair: Option<(String, String)>,
    ) -> Result<claude::Body, ModelError> {
        let ask = |structured| claude::ask(&self.env, config, &self.record, prompt, repair.clone(), structured);
        if self.data.borrow().stats.without_format {
            return ask(false).await;
        }
        match ask(true).await {
            Err(error) if asks_without_format(error, prompt) => {
                self.data.borrow_mut().stats.without_format = true;
                ask(false).await
            }
            answer => answer,
        }
    }

    /// The last moment to settle a payment that is not settled yet. An answer that comes later cannot be sold.
    fn settle_by(&self, limits: &Limits) -> Option<Millis> {
        let data = self.data.borrow();
        let payment = self.record.payment.as_ref()?;
        let unpaid = data.run.receipt().is_none() && !data.run.is_settling();
        let seconds = payment.valid_before.saturating_sub(limits.settle_margin_seconds);
        unpaid.then(|| seconds.saturating_mul(1000))
    }

    /// The prompt: from memory, or from storage where the run began before the object restarted.
    async fn open_prompt(&self) -> Result<Rc<RenderedPrompt>, Refusal> {
        if let Some(prompt) = self.data.borrow().prompt.clone() {
            return Ok(prompt);
        }
        let sealed = self.store.sealed_prompt(self.number).map_err(fault("sealed prompt"))?.unwrap_or_default();
        let vault = Vault::new(&self.env).map_err(fault("vault"))?;
        let plain = vault.open(&self.record.run_id, &sealed).await.map_err(fault("sealed prompt"))?;
        serde_json::from_slice(&plain).map(Rc::new).map_err(fault("sealed prompt"))
    }

    /// Seals the prompt for the run's id. It is stored with the run.
    pub(super) async fn seal_prompt(&self) -> Result<(), Refusal> {
        let Some(prompt) = self.data.borrow().prompt.clone() else { return Ok(()) };
        let vault = Vault::new(&self.env).map_err(fault("vault"))?;
        let json = serde_json::to_vec(&*prompt).map_err(fault("rendered prompt"))?;
        let sealed = vault.seal(&self.record.run_id, &json).await.map_err(fault("vault"))?;
        self.data.borrow_mut().sealed_prompt = Some(sealed);
        Ok(())
    }

    /// Only in the build that `tests/stack/panic.test.mjs` makes for itself.
    #[cfg(feature = "panic-probe")]
    #[allow(clippy::panic)]
    async fn panic_if_asked(&self) {
        let prompt = self.open_prompt().await;
        if prompt.is_ok_and(|prompt| prompt.system.reveal().contains("[panic-probe]")) {
            panic!("asked to");
        }
    }

    fn handle_steps<'a>(&self, reader: &AnswerReader, steps: impl IntoIterator<Item = Step<'a>>) -> Progress {
        {
            let mut data = self.data.borrow_mut();
            data.stats.usage = reader.usage;
            data.stats.stop_reason.clone_from(&reader.stop_reason);
        }
        for step in steps {
            match step {
                Step::Began => {
                    self.data.borrow_mut().stats.note_begun();
                    self.handle_event(Event::Began);
                }
                Step::TextBegins => {
                    self.text_begun.set(true);
                    self.updates.notify();
                }
                Step::Text(text) => self.append_text(text),
                Step::Whole => return Progress::Whole,
                Step::Broke(error) => {
                    self.data.borrow_mut().stats.note_broken(error);
                    let no_text = self.data.borrow().transcript.is_empty();
                    self.handle_event(Event::Broke { error, no_text });
                }
            }
        }
        match reader.is_over() {
            true => Progress::Broken,
            false => Progress::Unfinished,
        }
    }

    fn append_text(&self, text: &str) {
        let (is_first, is_due) = {
            let mut data = self.data.borrow_mut();
            let data = &mut *data;
            let is_first = data.transcript.is_empty();
            data.transcript.push(text);
            let now = clock::now();
            let is_old = now.saturating_sub(data.checkpointed_at) >= CHECKPOINT_AGE;
            let is_due = is_old || data.transcript.unsaved_bytes() >= CHECKPOINT_BYTES;
            let is_shown = matches!(data.run.view(), View::Show);
            (is_first, is_due && is_shown)
        };
        if is_due {
            self.checkpoint();
        }
        match is_first {
            true => self.handle_event(Event::FirstText),
            false => self.updates.notify(),
        }
    }
}
