//! Run objects, seen from outside: how the front door reaches the object of a payment, and how the object
//! takes and gives what passes between them.

use crate::edge::body_writer;
use crate::edge::fault;
use crate::rules::hire::task::TaskReport;
use crate::rules::ids::object_of;
use crate::rules::ids::object_of_task;
use crate::rules::record::run_request::RunRequest;
use crate::rules::refusal::Refusal;
use crate::rules::run::Millis;
use futures::future::{self, Either, LocalBoxFuture};
use futures::{FutureExt, StreamExt};
use js_sys::{Function, Promise};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wasm_bindgen_futures::JsFuture;
use worker::{Env, Method, Request, RequestInit, Response, Result, Stub};

/// The binding of the objects' namespace.
const NAMESPACE: &str = "RUNS";
/// Tells the front door what the object's body is, where it is not for the caller as it stands.
const KIND: &str = "x-coinslot-kind";
/// It is a [`Refused`].
const REFUSED: &str = "refused";
/// It is a task's [`TaskReport`].
pub(crate) const TASK: &str = "task";
/// It is empty: the caller has read all there is.
pub(crate) const ENDED: &str = "ended";
/// Nobody needs more than this of an object's request head.
const HOST: &str = "https://run";

/// What the object answers where it has no text to show.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// Why.
    pub(crate) refusal: Refusal,
    /// The run, where one exists.
    pub(crate) run: Option<String>,
    /// `PAYMENT-RESPONSE` in both versions, where a settlement was asked for: names and values.
    pub(crate) settlement: Vec<(String, String)>,
    /// The run was paid for all the same.
    pub(crate) charged: bool,
}

/// What one object of ours tells another of its run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct RunSummary {
    /// It knows of no run.
    pub(crate) new: bool,
    /// Nothing has come of its run: whatever was reserved for it is free again.
    pub(crate) failed: bool,
    /// It is paid, or has come to nothing without its text having been shown.
    pub(crate) cleared: bool,
}

/// What the run object answers.
pub(crate) enum Answer {
    /// Ready for the caller.
    Ready(Response),
    /// The caller has read all there is.
    Ended,
    /// How a task stands.
    Task(Box<TaskReport>),
    /// To be told as a problem.
    Refused(Refused),
}

/// Presents a payment (or an owner's test) to its object.
///
/// The object cannot see that a caller has hung up before any answer; the front door can (`caller` is the
/// caller's own request). It keeps the body of this one open until there is an answer or the caller is gone.
pub(crate) async fn present(
    env: &Env,
    caller: &Request,
    run_request: &RunRequest,
) -> std::result::Result<Answer, Refusal> {
    let stub = stub(env, &run_request.object)?;
    let mut line = serde_json::to_vec(run_request).map_err(fault("run_request"))?;
    line.push(b'\n');
    let (body, writer) = body_writer::pipe().map_err(|_| Refusal::Internal)?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_body(Some(body.into()));
    let request = Request::new_with_init(HOST, &init).map_err(fault("run object"))?;
    let answer = stub.fetch_with_request(request);
    let until_gone = async {
        let _ = writer.write(&line).await;
        hung_up(caller).await;
    };
    let response = match future::select(std::pin::pin!(answer), std::pin::pin!(until_gone)).await {
        Either::Left((response, _)) => Some(response),
        Either::Right(_) => None,
    };
    writer.close().await;
    // Of a caller who is gone nobody reads what is said here.
    read(response.ok_or(Refusal::Internal)?.map_err(fault("run object"))?).await
}

/// Resolves when the caller hangs up.
async fn hung_up(caller: &Request) {
    let signal = caller.inner().signal();
    let mut on_abort = |resolve: Function, _| signal.set_onabort(Some(&resolve));
    if !signal.aborted() {
        let _ = JsFuture::from(Promise::new(&mut on_abort)).await;
    }
}

/// Where a run stands.
pub(crate) async fn status(env: &Env, run: &str) -> std::result::Result<Answer, Refusal> {
    get(env, run, &format!("/status/{run}")).await
}

/// A run's events, from after the one with this id.
pub(crate) async fn follow(env: &Env, run: &str, last_event_id: Option<u64>) -> std::result::Result<Answer, Refusal> {
    let after = last_event_id.map_or_else(String::new, |id| id.to_string());
    get(env, run, &format!("/follow/{run}/{after}")).await
}

/// What has become of the run of this object.
pub(crate) async fn summary(env: &Env, object: &str) -> std::result::Result<RunSummary, Refusal> {
    let response = stub(env, object)?.fetch_with_str(&format!("{HOST}/summary")).await;
    response.map_err(fault("run object"))?.json().await.map_err(fault("run object"))
}

/// How a contract's task stands.
pub(crate) async fn task(env: &Env, task_id: &str, contract_id: &str) -> std::result::Result<Answer, Refusal> {
    let object = object_of_task(task_id).ok_or(Refusal::NotFound)?;
    send(env, &object, &format!("/task/{task_id}/{contract_id}")).await
}

/// A task's events, from after the one with this id.
pub(crate) async fn follow_task(
    env: &Env,
    task: &str,
    last_event_id: Option<u64>,
) -> std::result::Result<Answer, Refusal> {
    let object = object_of_task(task).ok_or(Refusal::NotFound)?;
    let after = last_event_id.map_or_else(String::new, |id| id.to_string());
    send(env, &object, &format!("/follow-task/{task}/{after}")).await
}

/// Takes a payment to a contract's object: from then on it begins no run of its own. `false`: it has begun one, or
/// was taken elsewhere.
pub(crate) async fn reserve(env: &Env, payment: &str, to: &str, until: Millis) -> std::result::Result<bool, Refusal> {
    let response = stub(env, payment)?.fetch_with_str(&format!("{HOST}/reserve/{to}/{until}")).await;
    response.map_err(fault("run object"))?.json().await.map_err(fault("run object"))
}

async fn get(env: &Env, run: &str, path: &str) -> std::result::Result<Answer, Refusal> {
    send(env, object_of(run).ok_or(Refusal::NotFound)?, path).await
}

async fn send(env: &Env, object: &str, path: &str) -> std::result::Result<Answer, Refusal> {
    let stub = stub(env, object)?;
    read(stub.fetch_with_str(&format!("{HOST}{path}")).await.map_err(fault("run object"))?).await
}

fn stub(env: &Env, object: &str) -> std::result::Result<Stub, Refusal> {
    let namespace = env.durable_object(NAMESPACE).map_err(fault("RUNS binding"))?;
    namespace.get_by_name(object).map_err(fault("run object"))
}

async fn read(mut response: Response) -> std::result::Result<Answer, Refusal> {
    let kind = response.headers().get(KIND).map_err(fault("run object"))?;
    match kind.as_deref() {
        Some(REFUSED) => response.json().await.map(Answer::Refused).map_err(fault("run object")),
        Some(TASK) => {
            response.text().await.and_then(|text| parse(text.as_bytes())).map(Answer::Task).map_err(fault("task"))
        }
        Some(ENDED) => Ok(Answer::Ended),
        _ => Ok(Answer::Ready(response)),
    }
}

// The object's side.

/// What somebody wants of the object.
pub(crate) enum ObjectRequest {
    /// To present a payment.
    Present(Box<RunRequest>),
    /// To know where the run stands.
    Status {
        /// Its id.
        run: String,
    },
    /// To read the run's events.
    Follow {
        /// Its id.
        run: String,
        /// The last that was read.
        last_event_id: Option<u64>,
    },
    /// To know how a task stands.
    Task {
        /// Its id.
        task: String,
        /// Of this contract.
        contract: String,
    },
    /// To read a task's events.
    FollowTask {
        /// Its id.
        task: String,
        /// The last that was read.
        last_event_id: Option<u64>,
    },
    /// To take the payment to a contract's object.
    Reserve {
        /// The object.
        to: String,
        /// Unix milliseconds.
        until: Millis,
    },
    /// See [`RunSummary`].
    Summary,
}

/// Reads a send. The second value resolves when the visitor has gone, as far as that can be seen.
pub(crate) async fn receive(mut request: Request) -> Result<(ObjectRequest, LocalBoxFuture<'static, ()>)> {
    let path = request.path();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let send = match segments.as_slice() {
        ["status", run] => ObjectRequest::Status { run: (*run).to_owned() },
        ["follow", run, after] => ObjectRequest::Follow { run: (*run).to_owned(), last_event_id: after.parse().ok() },
        ["task", task, contract] => ObjectRequest::Task { task: (*task).to_owned(), contract: (*contract).to_owned() },
        ["follow-task", task, after] => {
            ObjectRequest::FollowTask { task: (*task).to_owned(), last_event_id: after.parse().ok() }
        }
        ["reserve", to, until] => {
            ObjectRequest::Reserve { to: (*to).to_owned(), until: until.parse().unwrap_or_default() }
        }
        ["summary"] => ObjectRequest::Summary,
        _ => {
            let mut body = request.stream()?;
            let mut line = Vec::new();
            while line.last() != Some(&b'\n') {
                match body.next().await {
                    Some(bytes) => line.extend(bytes?),
                    None => break,
                }
            }
            let gone = async move { while let Some(Ok(_)) = body.next().await {} };
            return Ok((ObjectRequest::Present(Box::new(parse(&line)?)), gone.boxed_local()));
        }
    };
    Ok((send, future::pending().boxed_local()))
}

/// Through serde_json: JavaScript's numbers would round what is above 2^53.
fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    Ok(serde_json::from_slice(json)?)
}

/// An answer that the front door turns into another.
pub(crate) fn marked(kind: &str) -> Result<Response> {
    let response = Response::empty()?;
    response.headers().set(KIND, kind)?;
    Ok(response)
}

/// How a task stands, on its way to the front door.
pub(crate) fn task_report(report: &TaskReport) -> Result<Response> {
    let response = Response::from_bytes(serde_json::to_vec(report)?)?;
    response.headers().set(KIND, TASK)?;
    Ok(response)
}

/// A refusal on its way to the front door.
pub(crate) fn refused(refused: &Refused) -> Result<Response> {
    let response = Response::from_json(refused)?;
    response.headers().set(KIND, REFUSED)?;
    Ok(response)
}

/// 128 random bits.
pub(crate) fn random_hex() -> std::result::Result<String, Refusal> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(fault("random source"))?;
    Ok(hex::encode(bytes))
}
