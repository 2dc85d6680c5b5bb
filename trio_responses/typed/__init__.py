"""What types and signatures say, as JSON schemas: plain functions without I/O."""
