//! The ledger objects' protocol. They gather rows, because D1 takes a hundred rows in one transaction as quickly as one.

use crate::edge::{clock, fault};
use crate::rules::record::ledger_row::Row;
use crate::rules::refusal::Refusal;
use std::time::Duration;
use worker::{Env, Method, Request, RequestInit};

/// The binding of the objects' namespace.
const NAMESPACE: &str = "LEDGERS";
/// The one object that gathers. It answers about a thousand calls a second, which is more rows than D1 takes.
const OBJECT: &str = "ledger";
/// How long D1 may take. After that, the row is sent again by the run's alarm.
const LIMIT: Duration = Duration::from_secs(20);

/// Writes the row of a run, or updates it. It is in D1 when this returns.
pub(crate) async fn write(env: &Env, row: &Row) -> Result<(), Refusal> {
    let namespace = env.durable_object(NAMESPACE).map_err(fault("LEDGERS binding"))?;
    let stub = namespace.get_by_name(OBJECT).map_err(fault("ledger object"))?;
    let json = serde_json::to_string(row).map_err(fault("ledger row"))?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_body(Some(json.into()));
    let request = Request::new_with_init("https://ledger", &init).map_err(fault("ledger object"))?;
    let response = clock::within(LIMIT, stub.fetch_with_request(request)).await.ok_or("no answer in time");
    let response = response.map_err(fault("ledger object"))?.map_err(fault("ledger object"))?;
    match response.status_code() {
        200 => Ok(()),
        status => Err(fault("ledger object")(status)),
    }
}
