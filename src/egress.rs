//! The egress decision: may this run talk to that host? Pure.
//!
//! A [`Ruleset`] is the union of the `EgressPolicy` objects that a run names. A connection is judged twice:
//! [`decide`] looks at the target as the agent wrote it, before any name is resolved, so that a refused name
//! is never asked of a name server; [`decide_address`] looks at each address that an allowed name resolves
//! to, and the caller dials exactly such an address. A name that turns into a private address later
//! ("rebinding") is therefore judged by the address that would be dialled.
//!
//! What the rules mean where the field list leaves room:
//!
//! * A rule without `ports` means 443; a rule with `methods` or `paths` means 80 and 443 (plain HTTP, and
//!   routes to an https upstream). A deny rule closes every port.
//! * `*.example.com` stands for exactly one label, as in certificates (RFC 9525, 6.3).
//! * `cidrs` match addresses that the agent wrote, never names: resolving names that no rule names would let
//!   data out through DNS. A *deny* rule's `cidrs` also match the addresses that a name resolves to.
//! * Inside a tunnel nothing can be seen, so a rule with `methods` or `paths` never opens one.
//! * `mode: Audit`: deny rules of that policy are recorded, not enforced; a target that no rule names passes
//!   (recorded) only if every policy is `Audit`. Private and reserved addresses stay closed in either mode.
//! * A private address opens if a rule of a policy with `allowPrivate` names the host, or any such rule's
//!   `cidrs` hold the address.

mod address;
mod cidr;
mod decide;
mod host;
mod http;
mod policy;
mod rule;
mod suggest;

pub use address::{Scope, scope_of};
pub use cidr::{Cidr, CidrError};
pub use decide::{Decision, Reason, Request, Verdict, decide, decide_address};
pub use host::{Host, HostError, HostName, HostPattern};
pub use http::{HttpError, Method, PathPattern};
pub use policy::{Fault, OwnService, Policy, Ruleset, RulesetError};
pub use rule::{Rule, RuleName};
pub use suggest::Suggestion;

#[cfg(test)]
mod tests;
