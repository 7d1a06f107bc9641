"""recommend, the public function: takes a user id and returns recommendations, with the help of the other two."""
