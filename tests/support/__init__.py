"""What several test files share: small models, local servers, scripted backends and clocks."""
