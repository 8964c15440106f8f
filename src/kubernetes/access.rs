//! The Access port: `TokenReview` and `SubjectAccessReview`.
