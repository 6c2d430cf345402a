//! Domain errors as HTTP answers: the one place that knows both.
