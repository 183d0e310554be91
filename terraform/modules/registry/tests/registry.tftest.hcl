mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name                = "roster"
  deletion_protection = true
}

run "repository" {
  assert {
    condition     = aws_ecr_repository.image.name == "roster" && aws_ecr_repository.image.image_tag_mutability == "IMMUTABLE"
    error_message = "A tag never moves."
  }

  assert {
    condition     = one(aws_ecr_repository.image.image_scanning_configuration).scan_on_push && one(aws_ecr_repository.image.encryption_configuration).encryption_type == "AES256"
    error_message = "Images are scanned and encrypted."
  }

  assert {
    condition     = aws_ecr_repository.image.force_delete == false
    error_message = "The repository is not deleted with its images."
  }

  assert {
    condition     = output.repository_url == "123456789012.dkr.ecr.eu-west-1.amazonaws.com/roster"
    error_message = "The output is the URL of the repository."
  }
}

run "lifecycle" {
  assert {
    condition = { for rule in jsondecode(aws_ecr_lifecycle_policy.image.policy).rules : rule.selection.tagStatus => "${rule.selection.countType} ${rule.selection.countNumber} ${rule.action.type}" } == {
      untagged = "sinceImagePushed 7 expire"
      tagged   = "imageCountMoreThan 30 expire"
    }
    error_message = "Untagged images expire after a week, tagged images after thirty newer ones."
  }

  assert {
    condition     = aws_ecr_lifecycle_policy.image.repository == "roster"
    error_message = "The policy is that of the repository."
  }
}

run "without_deletion_protection" {
  variables {
    deletion_protection = false
  }

  assert {
    condition     = aws_ecr_repository.image.force_delete
    error_message = "The repository can be destroyed with its images."
  }
}
