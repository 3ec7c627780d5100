//! The wallet objects' protocol, both sides of it: how a route calls the object of a wallet, and how the object reads
//! the call and answers it.

use crate::edge::body_reader::BodyReader;
use crate::edge::body_writer;
use crate::edge::fault;
use crate::rules::hire::task::TaskReport;
use crate::rules::ids::object_of;
use crate::rules::ids::object_of_task;
use crate::rules::record::run_request::RunRequest;
use crate::rules::refusal::Refusal;
use futures::future::{self, Either, LocalBoxFuture};
use futures::FutureExt;
use js_sys::{Function, Promise};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wasm_bindgen_futures::JsFuture;
use worker::{Env, Error, Method, Request, RequestInit, Response, Result, Stub};

/// The binding of the objects' namespace.
const NAMESPACE: &str = "WALLETS";
/// The header that says what the body is, where the route has to make another response of it.
const KIND: &str = "x-coinslot-kind";
/// The body is a [`Refused`].
const REFUSED: &str = "refused";
/// The body is a [`TaskReport`].
const TASK: &str = "task";
/// There is no body: the caller has read everything.
const ENDED: &str = "ended";
/// A call by a stub needs a URL, of which the object reads the path alone.
const ORIGIN: &str = "https://wallet";

/// The object's answer where there is no run to show.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// The route is to verify the payment and present it again. Then the refusal says nothing.
    pub(crate) verify_first: bool,
    pub(crate) refusal: Refusal,
    /// The run's id, where a run exists.
    pub(crate) run: Option<String>,
    /// The headers that tell of a settlement, where one was asked for: names and values.
    pub(crate) settlement: Vec<(String, String)>,
    /// The run was paid for all the same.
    pub(crate) charged: bool,
}

/// A refusal where no run is known.
impl From<Refusal> for Box<Refused> {
    fn from(refusal: Refusal) -> Self {
        Box::new(Refused { verify_first: false, refusal, run: None, settlement: Vec::new(), charged: false })
    }
}

impl Refused {
    pub(crate) fn verify_first() -> Self {
        let (refusal, settlement) = (Refusal::PaymentRequired, Vec::new());
        Self { verify_first: true, refusal, run: None, settlement, charged: false }
    }
}

// The route's side.

/// What a route gets from the object.
pub(crate) enum Answer {
    /// A response that goes to the caller as it is.
    Ready(Response),
    /// The caller has read everything.
    Ended,
    Task(Box<TaskReport>),
    Refused(Refused),
    /// The payment is to be verified and presented again.
    VerifyFirst,
}

/// Presents a payment (or an owner's test) to its object.
///
/// Before the object has answered, it cannot see that the caller disconnects; the route can. So the body of this call
/// stays open until there is an answer or the caller is gone.
pub(crate) async fn present(
    env: &Env,
    caller: &Request,
    run_request: &RunRequest,
) -> std::result::Result<Answer, Refusal> {
    let stub = stub(env, &run_request.object)?;
    let mut line = serde_json::to_vec(run_request).map_err(fault("run request"))?;
    line.push(b'\n');
    let (body, writer) = body_writer::pipe().map_err(|_| Refusal::Internal)?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_body(Some(body.into()));
    let request = Request::new_with_init(ORIGIN, &init).map_err(fault("wallet object"))?;
    let answer = stub.fetch_with_request(request);
    let until_disconnected = async {
        let _ = writer.write(&line).await;
        disconnected(caller).await;
    };
    let response = match future::select(std::pin::pin!(answer), std::pin::pin!(until_disconnected)).await {
        Either::Left((response, _)) => Some(response),
        Either::Right(_) => None,
    };
    writer.close().await;
    // Without a response the caller has disconnected, so this refusal is dropped.
    read_answer(response.ok_or(Refusal::Internal)?.map_err(fault("wallet object"))?).await
}

/// Resolves when the caller disconnects.
async fn disconnected(caller: &Request) {
    let signal = caller.inner().signal();
    let mut on_abort = |resolve: Function, _| signal.set_onabort(Some(&resolve));
    if !signal.aborted() {
        let _ = JsFuture::from(Promise::new(&mut on_abort)).await;
    }
}

/// How far a run is.
pub(crate) async fn status(env: &Env, run: &str) -> std::result::Result<Answer, Refusal> {
    let object = object_of(run).ok_or(Refusal::NotFound)?;
    get(env, object, &format!("/status/{run}")).await
}

/// A run's events, from after the one with this id.
pub(crate) async fn follow(env: &Env, run: &str, last_event_id: Option<u64>) -> std::result::Result<Answer, Refusal> {
    let object = object_of(run).ok_or(Refusal::NotFound)?;
    let after = last_event_id.map_or_else(String::new, |id| id.to_string());
    get(env, object, &format!("/follow/{run}/{after}")).await
}

/// How a contract's task stands.
pub(crate) async fn task(env: &Env, task_id: &str, contract_id: &str) -> std::result::Result<Answer, Refusal> {
    let object = object_of_task(task_id).ok_or(Refusal::NotFound)?;
    get(env, object, &format!("/task/{task_id}/{contract_id}")).await
}

/// A task's events, from after the one with this id.
pub(crate) async fn follow_task(
    env: &Env,
    task: &str,
    last_event_id: Option<u64>,
) -> std::result::Result<Answer, Refusal> {
    let object = object_of_task(task).ok_or(Refusal::NotFound)?;
    let after = last_event_id.map_or_else(String::new, |id| id.to_string());
    get(env, object, &format!("/follow-task/{task}/{after}")).await
}

async fn get(env: &Env, object: &str, path: &str) -> std::result::Result<Answer, Refusal> {
    let stub = stub(env, object)?;
    read_answer(stub.fetch_with_str(&format!("{ORIGIN}{path}")).await.map_err(fault("wallet object"))?).await
}

fn stub(env: &Env, object: &str) -> std::result::Result<Stub, Refusal> {
    let namespace = env.durable_object(NAMESPACE).map_err(fault("WALLETS binding"))?;
    namespace.get_by_name(object).map_err(fault("wallet object"))
}

async fn read_answer(mut response: Response) -> std::result::Result<Answer, Refusal> {
    let kind = response.headers().get(KIND).map_err(fault("wallet object"))?;
    match kind.as_deref() {
        Some(REFUSED) => match response.json::<Refused>().await.map_err(fault("wallet object"))? {
            refused if refused.verify_first => Ok(Answer::VerifyFirst),
            refused => Ok(Answer::Refused(refused)),
        },
        Some(TASK) => {
            response.text().await.and_then(|text| parse(text.as_bytes())).map(Answer::Task).map_err(fault("task"))
        }
        Some(ENDED) => Ok(Answer::Ended),
        _ => Ok(Answer::Ready(response)),
    }
}

// The object's side.

/// A call as the object reads it.
pub(crate) enum ObjectRequest {
    Present(Box<RunRequest>),
    Status { run: String },
    Follow { run: String, last_event_id: Option<u64> },
    Task { task: String, contract: String },
    FollowTask { task: String, last_event_id: Option<u64> },
}

/// Reads a call. The future resolves when its caller has disconnected, as far as the object can see that.
pub(crate) async fn read_request(request: Request) -> Result<(ObjectRequest, LocalBoxFuture<'static, ()>)> {
    let path = request.path();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let read = match segments.as_slice() {
        ["status", run] => ObjectRequest::Status { run: (*run).to_owned() },
        ["follow", run, after] => ObjectRequest::Follow { run: (*run).to_owned(), last_event_id: after.parse().ok() },
        ["task", task, contract] => ObjectRequest::Task { task: (*task).to_owned(), contract: (*contract).to_owned() },
        ["follow-task", task, after] => {
            ObjectRequest::FollowTask { task: (*task).to_owned(), last_event_id: after.parse().ok() }
        }
        _ => return read_presented(request).await,
    };
    Ok((read, future::pending().boxed_local()))
}

/// Reads what [`present`] sends: a line of JSON, in a body that ends when the caller is gone.
async fn read_presented(request: Request) -> Result<(ObjectRequest, LocalBoxFuture<'static, ()>)> {
    let body = request.inner().body().ok_or("a request without a body")?;
    let mut body = BodyReader::new(&body);
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        match body.next().await.map_err(Error::from)? {
            Some(bytes) => line.extend(bytes),
            None => break,
        }
    }
    let presented = ObjectRequest::Present(Box::new(parse(&line)?));
    Ok((presented, body.until_end().boxed_local()))
}

/// Through serde_json: JavaScript's numbers would round what is above 2^53.
fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    Ok(serde_json::from_slice(json)?)
}

/// The response that becomes [`Answer::Ended`].
pub(crate) fn nothing_left() -> Result<Response> {
    of_kind(Response::empty()?, ENDED)
}

/// The response that becomes [`Answer::Task`].
pub(crate) fn task_report(report: &TaskReport) -> Result<Response> {
    of_kind(Response::from_bytes(serde_json::to_vec(report)?)?, TASK)
}

/// The response that becomes [`Answer::Refused`].
pub(crate) fn refused(refused: &Refused) -> Result<Response> {
    of_kind(Response::from_json(refused)?, REFUSED)
}

fn of_kind(response: Response, kind: &str) -> Result<Response> {
    response.headers().set(KIND, kind)?;
    Ok(response)
}

/// 128 random bits in hex.
pub(crate) fn random_hex() -> std::result::Result<String, Refusal> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(fault("random source"))?;
    Ok(hex::encode(bytes))
}
