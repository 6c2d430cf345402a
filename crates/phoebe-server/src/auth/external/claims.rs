//! What the claims of another service's token say of a user.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::auth::error::AuthError;
use crate::auth::identity::{Credential, Identity};
use crate::auth::role::Role;

/// Longer ids and names are no ids and names.
const MAX_TEXT: usize = 255;

pub(super) type Claims = Map<String, Value>;

/// The user of a verified token; `role_claim` names the claim that holds the role.
pub(super) fn identity(claims: &Claims, role_claim: &str) -> Result<Identity, AuthError> {
    let user_id = match claims.get("sub") {
        Some(Value::String(id)) if id.is_empty() => {
            return Err(invalid("The \"sub\" claim is empty"));
        }
        Some(Value::String(id)) if id.len() > MAX_TEXT => {
            return Err(invalid("The \"sub\" claim is too long"));
        }
        Some(Value::String(id)) => id.clone(),
        Some(_) => return Err(invalid("The \"sub\" claim has the wrong type")),
        None => return Err(invalid("Token is missing the \"sub\" claim")),
    };
    Ok(Identity {
        user_id,
        email: text(claims, "email").unwrap_or_default(),
        full_name: full_name(claims),
        role: role(claims, role_claim),
        students: Arc::default(),
        credential: Credential::Token,
    })
}

fn invalid(reason: &str) -> AuthError {
    AuthError::InvalidToken(reason.to_owned())
}

fn text(claims: &Claims, name: &str) -> Option<String> {
    let text = claims.get(name)?.as_str()?.trim();
    (!text.is_empty() && text.len() <= MAX_TEXT).then(|| text.to_owned())
}

fn full_name(claims: &Claims) -> String {
    let parts = || {
        let parts: Vec<String> =
            ["given_name", "family_name"].iter().filter_map(|name| text(claims, name)).collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    };
    text(claims, "full_name")
        .or_else(|| text(claims, "name"))
        .or_else(parts)
        .or_else(|| text(claims, "preferred_username"))
        .unwrap_or_default()
}

/// The greatest role that the claim names, a text or a list of texts; unknown ones say nothing.
fn role(claims: &Claims, claim: &str) -> Role {
    let named: Vec<&str> = match find(claims, claim) {
        Some(Value::String(role)) => vec![role],
        Some(Value::Array(roles)) => roles.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let raised = [Role::Admin, Role::Instructor];
    raised.into_iter().find(|role| named.contains(&role.as_str())).unwrap_or_default()
}

/// A claim by its name, or by its path with dots, e.g. `realm_access.roles`.
fn find<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let mut steps = name.split('.');
    let first = claims.get(steps.next()?)?;
    steps.try_fold(first, |value, step| value.get(step))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(claims: Value, role_claim: &str) -> Identity {
        identity(claims.as_object().unwrap(), role_claim).unwrap()
    }

    #[test]
    fn names_come_from_the_claims_that_services_write() {
        for (claims, name) in [
            (json!({"full_name": "Ada L", "name": "no"}), "Ada L"),
            (json!({"name": " Ada L "}), "Ada L"),
            (json!({"name": 7, "given_name": "Ada", "family_name": "L"}), "Ada L"),
            (json!({"family_name": "L", "preferred_username": "ada"}), "L"),
            (json!({"name": "", "preferred_username": "ada"}), "ada"),
            (json!({"name": "x".repeat(256)}), ""),
            (json!({}), ""),
        ] {
            let mut claims = claims;
            claims["sub"] = json!("7");
            assert_eq!(of(claims.clone(), "role").full_name, name, "{claims}");
        }
    }

    #[test]
    fn only_known_roles_are_granted() {
        for (claims, claim, role) in [
            (json!({"role": "admin"}), "role", "admin"),
            (json!({"role": "Admin"}), "role", "student"),
            (json!({"role": "root"}), "role", "student"),
            (json!({"role": ["x", "instructor", "student"]}), "role", "instructor"),
            (json!({"role": {"admin": true}}), "role", "student"),
            (json!({"roles": ["admin"]}), "role", "student"),
            (json!({"realm_access": {"roles": ["admin"]}}), "realm_access.roles", "admin"),
            (json!({"https://x.org/role": "admin"}), "https://x.org/role", "admin"),
            (json!({"realm_access": "admin"}), "realm_access.roles", "student"),
            (json!({"": "admin"}), "role", "student"),
        ] {
            let mut claims = claims;
            claims["sub"] = json!("7");
            assert_eq!(of(claims.clone(), claim).role.as_str(), role, "{claims} {claim}");
        }
    }

    #[test]
    fn the_sub_claim_is_required() {
        let long = "x".repeat(256);
        for sub in [json!(""), json!(7), json!(null), json!(["x"]), json!(long)] {
            let claims = json!({"sub": sub});
            assert!(identity(claims.as_object().unwrap(), "role").is_err(), "{claims}");
        }
        assert!(identity(&Claims::new(), "role").is_err());
        let ada = of(json!({"sub": "7", "email": "ada@x.org"}), "role");
        assert_eq!((ada.user_id.as_str(), ada.email.as_str()), ("7", "ada@x.org"));
    }
}
