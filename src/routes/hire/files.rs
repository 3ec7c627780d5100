//! `/files/…`: deliverables, for whoever has a link to one.

use crate::edge::{clock, fault, files};
use crate::routes::problem::{succeed, Success};
use crate::routes::reply::Reply;
use crate::routes::request::RequestContext;
use crate::wire::range;
use crate::wire::range::RangeRequest;
use worker::Response;

/// Hands out a file, or a range of it.
pub(crate) async fn show(context: RequestContext<'_>, key: &str) -> Reply {
    let file = files::open(context.env, key, &context.query(), clock::seconds()).await?;
    let etag = format!("\"{}\"", file.checksum);
    let length = file.bytes.len();
    let same = |name: &str| context.header(name).map(|value| value.is_none_or(|value| value == etag));
    let known = context.header("if-none-match")?.unwrap_or_default();
    let mut known = known.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
    let unchanged = known.any(|tag| tag == etag || tag == "*");
    let wanted = match context.header("range")? {
        Some(range) if same("if-range")? => range::read(&range, length),
        _ => RangeRequest::Whole,
    };
    let (success, bytes, range) = match wanted {
        _ if unchanged => (Success::Unchanged, Vec::new(), None),
        RangeRequest::Whole => (Success::Done, file.bytes, None),
        RangeRequest::Part(first, last) => {
            let part = file.bytes.get(first..=last).unwrap_or_default().to_vec();
            (Success::Part, part, Some(format!("bytes {first}-{last}/{length}")))
        }
        RangeRequest::Nothing => (Success::NoSuchRange, Vec::new(), Some(format!("bytes */{length}"))),
    };
    let size = bytes.len().to_string();
    let response = match bytes.is_empty() {
        true => Response::empty(),
        false => Response::from_bytes(bytes),
    };
    let response = response.map_err(fault("file"))?;
    let headers = response.headers();
    let name = key.rsplit('/').next().unwrap_or_default();
    for (name, value) in [
        ("content-type", file.mime.as_str()),
        ("content-length", &size),
        ("accept-ranges", "bytes"),
        ("etag", &etag),
        ("cache-control", "private, max-age=3600"),
        // Claude wrote the file: a browser must not show it as a page of this host.
        ("content-disposition", &format!("attachment; filename=\"{name}\"")),
        ("content-security-policy", "sandbox; default-src 'none'"),
    ] {
        headers.set(name, value).map_err(fault("file"))?;
    }
    if let Some(range) = range {
        headers.set("content-range", &range).map_err(fault("file"))?;
    }
    Ok(succeed(response, success))
}
