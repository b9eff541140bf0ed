"""Event archive, data sets, models, fitting, evaluation, gate and publishing."""
