"""What to try when a run fails or its style is not right: one source for errors, verdicts, reports and the docs."""

from terroir.training.advice.ask import for_losses, for_reason, for_symptom, for_verdict, hint
from terroir.training.advice.values import Advice, Change, Symptom, Try

__all__ = ["Advice", "Change", "Symptom", "Try", "for_losses", "for_reason", "for_symptom", "for_verdict", "hint"]
