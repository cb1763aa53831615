"""Where bytes lie: local folders, S3, read-only HTTPS; one protocol, so that nothing above knows which."""
