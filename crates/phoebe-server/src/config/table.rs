//! The macro that turns the table of settings into types, defaults and [`Key`]s.

use toml::Value;

/// One `[section]` of the settings.
pub struct Section<S: 'static> {
    /// The name in the file.
    pub name: &'static str,
    /// The documentation.
    pub doc: &'static str,
    /// The keys, in the order of the documentation.
    pub keys: &'static [Key<S>],
}

/// A setting without its value.
pub struct Key<S> {
    /// The name of its section.
    pub section: &'static str,
    /// The name in the section.
    pub name: &'static str,
    /// The documentation.
    pub doc: &'static str,
    /// Logged at the start if the key is set, because it does not do what its name says.
    pub note: Option<&'static str>,
    /// Whether SIGHUP applies a new value to a running server.
    pub live: bool,
    /// Describes the accepted values.
    pub kind: fn() -> String,
    /// Sets it from a TOML value.
    pub(super) read: fn(&mut S, &Value) -> Result<(), String>,
    /// Sets it from the text of a variable or flag.
    pub(super) read_text: fn(&mut S, &str) -> Result<(), String>,
    /// Returns its value; secrets are masked.
    pub(super) write: fn(&S) -> Value,
    /// Returns whether both have the same value.
    pub(super) is_same: fn(&S, &S) -> bool,
    /// Copies the value of the second to the first.
    pub(super) copy: fn(&mut S, &S),
}

impl<S> Key<S> {
    /// Returns the value in `settings`; secrets are masked.
    #[must_use]
    pub fn value(&self, settings: &S) -> Value {
        (self.write)(settings)
    }

    /// Returns section and name, as in messages.
    #[must_use]
    pub fn title(&self) -> String {
        format!("[{}] {}", self.section, self.name)
    }
}

/// Defines the sections' types, their defaults, [`Settings`] and `Settings::SECTIONS`.
macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $section_type:ident {$(
            $(#[doc = $doc:literal])+
            $key:ident: $type:ty = $default:expr $(, check($check:expr))? $(, note($note:expr))?
                $(, live($live:literal))?;
        )+}
    )+) => {
        /// All settings.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Settings {$(
            $(#[doc = $section_doc])+
            pub $section: $section_type,
        )+}

        $(
            $(#[doc = $section_doc])+
            #[derive(Debug, Clone, PartialEq)]
            pub struct $section_type {$(
                $(#[doc = $doc])+
                pub $key: $type,
            )+}

            impl Default for $section_type {
                fn default() -> Self {
                    Self {$( $key: $default, )+}
                }
            }
        )+

        impl Settings {
            /// All sections.
            pub const SECTIONS: &'static [$crate::config::table::Section<Settings>] = &[$(
                $crate::config::table::Section {
                    name: stringify!($section),
                    doc: concat!($($section_doc),+),
                    keys: &[$(
                        $crate::config::table::Key {
                            section: stringify!($section),
                            name: stringify!($key),
                            doc: concat!($($doc),+),
                            note: $crate::config::table::settings!(@note $($note)?),
                            live: $crate::config::table::settings!(@live $($live)?),
                            kind: <$type as $crate::config::value::Setting>::kind,
                            read: |settings, value| {
                                let value: $type = $crate::config::value::Setting::read(value)?;
                                $( ($check)(&value)?; )?
                                settings.$section.$key = value;
                                Ok(())
                            },
                            read_text: |settings, text| {
                                let value: $type = $crate::config::value::Setting::read_text(text)?;
                                $( ($check)(&value)?; )?
                                settings.$section.$key = value;
                                Ok(())
                            },
                            write: |settings| {
                                $crate::config::value::Setting::write(&settings.$section.$key)
                            },
                            is_same: |one, other| one.$section.$key == other.$section.$key,
                            copy: |to, from| to.$section.$key = from.$section.$key.clone(),
                        },
                    )+],
                },
            )+];
        }
    };
    (@note) => { None };
    (@note $note:expr) => { Some($note) };
    (@live) => { false };
    (@live $live:literal) => { $live };
}

pub(super) use settings;
