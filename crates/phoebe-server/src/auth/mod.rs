//! Who is asking: tokens, passwords and API keys. It decides identity only; what an identity may do is said where it is used.

/// An authenticated user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's id as text.
    pub user_id: String,
    /// E-mail address; may be empty.
    pub email: String,
    /// First and last name; may be empty.
    pub full_name: String,
    /// `student`, `instructor`, `admin`.
    pub role: String,
}
