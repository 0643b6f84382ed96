"""What a store holds, in the forms that a field shares."""
