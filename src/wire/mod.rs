//! The formats of others: x402, Anthropic, SSE, JWT, EVM, HIRE, and parts of HTTP. Pure: bytes become types, without a
//! clock and without a network. Each module names the specification that it follows.

pub mod accept;
pub mod amount;
pub mod anthropic;
pub mod base64;
pub mod canonical;
pub mod eip191;
pub mod evm;
pub mod evm_rpc;
pub mod flat;
pub mod hire;
pub mod jwt;
pub mod lenient;
pub mod prefer;
pub mod range;
pub mod retry_after;
pub mod sse;
pub mod strict;
pub mod timestamp;
pub mod x402;
pub mod x402_v1;
