"""extract_features: returns the features and the recent history of a user."""
