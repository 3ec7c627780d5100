//! Whether a payer's address has code, as a node of the chain says. A contract wallet signs in its own way (EIP-1271), and
//! its signature can be as long as a key's.
//!
//! A stranger can name any address, so the answers are kept, and few look-ups are made at a time.

use crate::edge::clock;
use crate::edge::http::chain::call;
use crate::rules::config::Network;
use crate::rules::payment::account_code::AccountCodes;
use crate::wire::evm::Address;
use crate::wire::evm_rpc;
use crate::wire::evm_rpc::Quantity;
use futures::future;
use std::cell::RefCell;

thread_local! {
    static CODES: RefCell<AccountCodes> = RefCell::new(AccountCodes::default());
}

/// Counts one look-up for as long as it is held.
struct LookUp;

impl LookUp {
    fn begin() -> Option<Self> {
        CODES.with_borrow_mut(AccountCodes::begin_look_up).then_some(Self)
    }
}

impl Drop for LookUp {
    fn drop(&mut self) {
        CODES.with_borrow_mut(AccountCodes::end_look_up);
    }
}

/// Whether the address has code on the network. `None`: no node is configured, it gives no usable answer, or too many
/// look-ups are under way.
pub(crate) async fn has_code(network: Option<&Network>, address: Address) -> Option<bool> {
    let network = network?;
    let url = network.rpc_url.as_deref()?;
    let known = CODES.with_borrow(|codes| codes.get(&network.id, address, clock::now()));
    if known.is_some() {
        return known;
    }
    let _look_up = LookUp::begin()?;
    let (chain_id, code) = (evm_rpc::chain_id(), evm_rpc::code_of(address));
    let answers = future::join(call::<Quantity>(url, &chain_id), call::<String>(url, &code)).await;
    // A node of another chain would say of every wallet that it has no code.
    let has_code = match answers {
        (Some(chain), Some(code)) if chain.0 == network.chain_id() => evm_rpc::read_has_code(&code),
        _ => None,
    };
    match has_code {
        Some(has_code) => {
            CODES.with_borrow_mut(|codes| codes.put(&network.id, address, has_code, clock::now()));
        }
        None => worker::console_error!("chain: the node of {} does not say whether an address has code", network.id),
    }
    has_code
}
