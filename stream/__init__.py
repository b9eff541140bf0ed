"""The Faust app: agents fold events into user and item state and publish both."""
