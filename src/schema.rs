//! One definition of each kind's schema and CEL rules, for files, the embedded store and the API server.
